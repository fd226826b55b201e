"""Jump labels: branches that are switched by rewriting them (kernel/jump_label.c, arch/x86/kernel/jump_label.c).

``struct jump_entry`` holds distances: to the code, to the target, to the key; the lowest bit of the last says which
way the branch goes while the key is off (50ff18ab497a "jump_label: Implement generic support for relative references",
4.20). A site has two or five bytes since ab3257042c26 "jump_label, x86: Allow short NOPs" (5.14), and keeps what it was
built with. Whether it jumps follows from the key alone.

A tracepoint's key is on while somebody listens (include/linux/tracepoint.h, `struct tracepoint`); that is worth saying.
"""

import numpy as np

from hypervigil.linux.system import System
from hypervigil.linux.text.code import U8, U64, Mask, branch_targets, gather, is_any, moved
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import JMP, JMP8, NOP5, Sites, Table, branch, sizes

SECTION = "__jump_table"

_ENTRY = np.dtype([("code", "<i4"), ("target", "<i4"), ("key", "<i8")])
_NOP2 = b"\x66\x90"
_TARGET_AT, _KEY_AT = 4, 8
_FLAGS = 3
_TAKEN = 1
_SHORT, _LONG = 2, 5
_TRACEPOINT = "__tracepoint_"
_NAMED = 8


def jump_label_sites(place: Place) -> Sites:
    """Every jump label must be the jump or the nop that its key asks for."""
    code = place.code
    address, target, key, taken = _entries(place.tables.get(SECTION, Table(0, b"")))
    kept = code.holds(address, _SHORT)
    address, target, key, taken = address[kept], target[kept], key[kept], taken[kept]
    rows = code.rows(address, _LONG)
    short = moved(address, rows[:, 1].view(np.int8).astype(np.int64) + _SHORT)
    near = (rows[:, 0] == JMP) & (branch_targets(address, rows, 1) == target)
    jump = near | (rows[:, 0] == JMP8) & (short == target)
    nop = is_any(rows, _NOP2, *NOP5)
    keys = gather(place.system.kernel.space, key, 4)
    wanted = (keys.s32() != 0) ^ taken
    blind = ~keys.seen
    unseen = int(np.count_nonzero(blind))
    two = _is_short(rows)
    if place.original is not None:
        built = _is_short(place.original.rows(address, _LONG))
        jump, nop, two = jump & (two == built), nop & (two == built), built

    def expected(row: int) -> tuple[bytes, ...]:
        size = _SHORT if two[row] else _LONG
        forms = [_jump(int(address[row]), int(target[row]), size), _NOP2 if size == _SHORT else NOP5[0]]
        return tuple(forms) if wanted[row] else (forms[1],)

    return Sites(
        kind="jump label",
        address=address,
        size=np.where(two, _SHORT, sizes(len(address), _LONG)),
        states=(("jump", jump & (wanted | blind)), ("nop", nop & (~wanted | blind))),
        legal="the jump to its target or the nop that its key asks for",
        expected=expected,
        owners=_listening(place.system, key, np.flatnonzero(keys.s32() != 0).tolist()),
        unseen=((f"{unseen} keys of jump labels of {code.owner}", "not in the image"),) if unseen else (),
    )


def _listening(system: System, keys: U64, rows: list[int]) -> dict[int, str]:
    """Which of the sites whose key is on belong to tracepoints; many tracepoints are only counted."""
    found: dict[int, str] = {}
    for row in rows:
        name = system.target(int(keys[row])).symbol
        if name.startswith(_TRACEPOINT):
            found[row] = f"tracepoint {name.removeprefix(_TRACEPOINT)}"
    several = len(set(found.values()))
    return found if several <= _NAMED else dict.fromkeys(found, f"{several} tracepoints")


def _is_short(rows: U8) -> Mask:
    """Which sites have two bytes; the linker or objtool chose that."""
    found: Mask = is_any(rows, _NOP2) | (rows[:, 0] == JMP8)
    return found


def _entries(table: Table) -> tuple[U64, U64, U64, Mask]:
    """Address, target, key and lowest bit of every entry."""
    count = len(table.data) // _ENTRY.itemsize
    entries = np.frombuffer(table.data, _ENTRY, count)
    places: U64 = np.uint64(table.address) + np.arange(count, dtype=np.uint64) * np.uint64(_ENTRY.itemsize)
    address = moved(places, entries["code"].astype(np.int64))
    target = moved(places + np.uint64(_TARGET_AT), entries["target"].astype(np.int64))
    key = moved(places + np.uint64(_KEY_AT), entries["key"] & ~np.int64(_FLAGS))
    return address, target, key, (entries["key"] & _TAKEN) != 0


def _jump(address: int, target: int, size: int) -> bytes:
    if size == _LONG:
        return branch(JMP, address, target)
    return bytes([JMP8, (target - address - _SHORT) & 0xFF])
