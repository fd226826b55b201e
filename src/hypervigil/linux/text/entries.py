"""First instructions of functions: they do not leave for the middle of another function, nor for foreign code.

Hooks replace them by a jump, or by an indirect one through a register that they load first. Compilers begin a
function with a jump too where all it does is to call another one at its end; then the target is where that begins.
"""

from typing import NamedTuple

import numpy as np

from hypervigil.linux.text.code import U8, U64, Code, Mask, among, branch_targets, distinct, gather, is_any, moved
from hypervigil.linux.text.endbr import ENDBR
from hypervigil.linux.text.landing import Landing
from hypervigil.linux.text.sites import INT3, JMP, NOP5
from hypervigil.memory.symbols import Symbols

_IS_FUNCTION = np.bincount(np.frombuffer(b"tTwW", np.uint8), minlength=256) > 0
_WIDTH = 12
_LEAST = 16
_PUSH, _RETURNS = 0x68, (0xC3, 0xC2)
_MOV64 = (0xB8, 0x48, 0x49)
_MOV32 = (0xC7, 0xC0)
_POINTER = (b"\xff\x25", b"\xff\x15")


class Entry(NamedTuple):
    """A function whose first instruction leads away.

    Attributes:
        address: where that instruction stands.
        size: bytes that show it.
        target: where it leads; None for an int3.
        how: in words.
    """

    address: int
    size: int
    target: int | None
    how: str


def odd_entries(code: Code, symbols: Symbols, landing: Landing, known: U64) -> tuple[Entry, ...]:
    """Functions that begin with a way out.

    Args:
        code: the text.
        symbols: symbols of its object.
        landing: where branches may lead.
        known: addresses that are patch sites and judged as such, sorted.
    """
    every = _starts(code, symbols)
    starts = every[code.holds(every, _WIDTH)]
    address = _first_instructions(code, starts)
    rows = code.rows(address, _WIDTH)
    fresh = ~among(address, known)
    found: list[Entry] = []
    found += _traps(starts, address, rows, fresh)
    found += _jumps(code, every, address, rows, fresh)
    found += _loaded(code, landing, address, rows)
    found += _by_pointer(code, landing, address, rows)
    return tuple(found)


def _starts(code: Code, symbols: Symbols) -> U64:
    inside = symbols.between(code.start, code.end)
    kinds = np.frombuffer(symbols.types[inside.start : inside.stop].encode("latin-1", "replace"), np.uint8)
    found = np.array(symbols.addresses[inside.start : inside.stop], np.uint64)[_IS_FUNCTION[kinds]]
    return distinct(found)


def _first_instructions(code: Code, starts: U64) -> U64:
    """Behind the landing pad and the nop of the tracer."""
    rows = code.rows(starts, len(ENDBR))
    at: U64 = starts + np.where(is_any(rows, ENDBR), np.uint64(len(ENDBR)), np.uint64(0))
    rows = code.rows(at, 5)
    return at + np.where(is_any(rows, *NOP5), np.uint64(5), np.uint64(0))


def _traps(starts: U64, address: U64, rows: U8, fresh: Mask) -> list[Entry]:
    """An int3 alone; a label of assembly that is followed by padding has few bytes to the next symbol."""
    room = np.append(starts[1:] - starts[:-1], np.uint64(_LEAST)) if len(starts) else starts
    odd = np.flatnonzero(fresh & (room >= np.uint64(_LEAST)) & (rows[:, 0] == INT3) & (rows[:, 1] != INT3))
    return [Entry(int(address[row]), 1, None, "begins with an int3") for row in odd.tolist()]


def _jumps(code: Code, starts: U64, address: U64, rows: U8, fresh: Mask) -> list[Entry]:
    """Jumps out of the function that do not lead to the start of another one."""
    target = branch_targets(address, rows, 1)
    own = np.searchsorted(starts, address, side="right")
    low = starts[np.maximum(own - 1, 0)]
    high = np.append(starts, np.uint64(code.end))[own]
    inside = (target >= np.uint64(code.start)) & (target < np.uint64(code.end))
    middle = inside & ~among(target, starts) & ((target < low) | (target >= high))
    odd = np.flatnonzero(fresh & (rows[:, 0] == JMP) & middle)
    return [
        Entry(int(address[row]), 5, int(target[row]), "begins with a jump into another function")
        for row in odd.tolist()
    ]


def _loaded(code: Code, landing: Landing, address: U64, rows: U8) -> list[Entry]:
    """Addresses that are loaded into a register or pushed at once, and lead to foreign code."""
    wide = (rows[:, 1] & 0xF8 == _MOV64[0]) & ((rows[:, 0] == _MOV64[1]) | (rows[:, 0] == _MOV64[2]))
    value = np.ascontiguousarray(rows[:, 2:10]).view("<u8").reshape(-1)
    short = (rows[:, 0] == _MOV64[1]) & (rows[:, 1] == _MOV32[0]) & (rows[:, 2] & 0xF8 == _MOV32[1])
    pushed = (rows[:, 0] == _PUSH) & ((rows[:, 5] == _RETURNS[0]) | (rows[:, 5] == _RETURNS[1]))
    found: list[Entry] = []
    zero = np.zeros(len(rows), np.uint64)
    for mask, target, size, how in (
        (wide, value, 13, "begins by loading an address of foreign code"),
        (short, _extended(zero, rows, 3), 10, "begins by loading an address of foreign code"),
        (pushed, _extended(zero, rows, 1), 6, "begins by pushing an address of foreign code and returns to it"),
    ):
        odd = np.flatnonzero(mask)
        odd = odd[landing.foreign(code.owner, target[odd])]
        found += [Entry(int(address[row]), size, int(target[row]), how) for row in odd.tolist()]
    return found


def _by_pointer(code: Code, landing: Landing, address: U64, rows: U8) -> list[Entry]:
    """Jumps and calls through a pointer beside the code (``ff 25``, ``ff 15``) that leads to foreign code."""
    chosen = np.flatnonzero(is_any(rows, *_POINTER))
    pointers = branch_targets(address[chosen], rows[chosen], 2)
    target = gather(landing.space, pointers, 8).u64()
    odd = np.flatnonzero(landing.foreign(code.owner, target))
    how = "begins with a branch through a pointer to foreign code"
    return [Entry(int(address[chosen[row]]), 6, int(target[row]), how) for row in odd.tolist()]


def _extended(zero: U64, rows: U8, at: int) -> U64:
    return moved(zero, np.ascontiguousarray(rows[:, at : at + 4]).view("<i4").reshape(-1).astype(np.int64))
