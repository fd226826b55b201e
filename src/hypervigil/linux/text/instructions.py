"""Instructions compared by what they do: wherever they stand, and however their padding is encoded.

Code that the kernel copies to another place is adjusted there: relative branches and addresses lead where they led
before, a jump may become a shorter one, and nops are merged (arch/x86/kernel/alternative.c, apply_relocation,
optimize_nops; before 6.3 recompute_jump).
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import capstone

_PADDING = frozenset({"nop", "int3"})
_RELATIVE = re.compile(r"\[rip ([+-]) 0x([0-9a-f]+)\]|\[rip\]")
_MAY_BRANCH = re.compile(rb"[\xe0-\xe3\xe8\xe9\xeb\x70-\x7f]|\x0f[\x80-\x8f]|[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]")
_BRANCHES = ("j", "call", "loop")


class Step(NamedTuple):
    """One instruction, free of its place.

    Attributes:
        address: where it stands.
        size: its bytes.
        name: its mnemonic, without the size of a jump.
        operands: with addresses instead of distances, and distances instead of targets within the same code.
        target: where a direct branch leads; None for others.
    """

    address: int
    size: int
    name: str
    operands: str
    target: int | None


@cache
def _engine() -> capstone.Cs:
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.skipdata = True
    return engine


def each_step(data: bytes, address: int, *, end_inside: bool = False) -> Iterator[Step]:
    """The instructions of `data`, bytes that make none one by one; nops are left as they stand.

    Args:
        data: the bytes.
        address: virtual address of the first.
        end_inside: whether one past the last byte counts as a place within.
    """
    last = address + len(data) - (not end_inside)
    for at, size, name, operands in _engine().disasm_lite(data, address):
        target = _target(name, operands)
        if target is not None:
            inside = address <= target <= last
            yield Step(at, size, name, f"+{target - address:#x}" if inside else f"{target:#x}", target)
        else:
            yield Step(at, size, name, _absolute(operands, at + size), None)


def same(one: bytes, at: int, other: bytes, there: int) -> bool:
    """Whether two pieces of code do the same, each at its address; the end of both may be meant, or the same place."""
    if one == other and (at == there or not may_branch(one)):
        return True
    return any(
        meaning(one, at, end_inside=inside) == meaning(other, there, end_inside=inside) for inside in (False, True)
    )


def may_branch(data: bytes) -> bool:
    """Whether any byte could begin a relative branch or an address relative to the instruction."""
    return _MAY_BRANCH.search(data) is not None


def meaning(data: bytes, address: int, *, end_inside: bool = False) -> tuple[tuple[str, str], ...]:
    """What code does, in a form that is equal for code that was moved, shortened or padded: names and operands.

    Padding at the end is left out, and so are nops in between and jumps over nothing but traps, which stand for many.
    """
    steps = [step for step in each_step(data, address, end_inside=end_inside) if not _is_nop(step)]
    found: list[tuple[str, str]] = []
    over = address
    for index, step in enumerate(steps):
        if step.address < over:
            continue
        if _leads_over_traps(steps, index, address + len(data)):
            over = step.target or over
        else:
            found.append((step.name, step.operands))
    while found and found[-1][0] in _PADDING:
        found.pop()
    return tuple(found)


def _is_nop(step: Step) -> bool:
    return step.name.startswith("nop")


def _leads_over_traps(steps: list[Step], index: int, end: int) -> bool:
    """Whether a step jumps forward, at most to the end, over traps only (optimize_nops since 6.3)."""
    step = steps[index]
    if step.name != "jmp" or step.target is None or not step.address < step.target <= end:
        return False
    between = [other.name for other in steps[index + 1 :] if other.address < step.target]
    return bool(between) and all(name in _PADDING for name in between)


def each_branch(data: bytes, address: int) -> Iterator[tuple[int, int]]:
    """``(address, target)`` of each direct branch out of `data`."""
    for step in each_step(data, address):
        if step.target is not None and not address <= step.target < address + len(data):
            yield step.address, step.target


def _target(name: str, operands: str) -> int | None:
    if not name.startswith(_BRANCHES) and " j" not in name and " call" not in name:
        return None
    return int(operands, 16) if operands.startswith("0x") else None


def _absolute(operands: str, end: int) -> str:
    def place(found: re.Match[str]) -> str:
        distance = int(found[2], 16) if found[2] else 0
        return f"[{(end + (-distance if found[1] == '-' else distance)) % (1 << 64):#x}]"

    return _RELATIVE.sub(place, operands) if "rip" in operands else operands
