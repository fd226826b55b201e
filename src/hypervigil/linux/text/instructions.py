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


def each_step(data: bytes, address: int) -> Iterator[Step]:
    """The instructions of `data`, bytes that make none one by one; nops are left as they stand."""
    for at, size, name, operands in _engine().disasm_lite(data, address):
        target = _target(name, operands)
        if target is not None:
            inside = address <= target < address + len(data)
            yield Step(at, size, name, f"+{target - address:#x}" if inside else f"{target:#x}", target)
        else:
            yield Step(at, size, name, _absolute(operands, at + size), None)


def meaning(data: bytes, address: int) -> tuple[tuple[str, str], ...]:
    """What code does, in a form that is equal for code that was moved, shortened or padded: names and operands.

    Padding at the end is left out, and so are nops in between.
    """
    found = [(step.name, step.operands) for step in each_step(data, address) if not step.name.startswith("nop")]
    while found and found[-1][0] in _PADDING:
        found.pop()
    return tuple(found)


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
