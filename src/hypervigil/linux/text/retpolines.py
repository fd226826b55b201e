"""Indirect branches: through a thunk, or plain where the processor needs none (arch/x86/kernel/alternative.c).

``apply_retpolines``: 7508500900814 "x86/retpoline: Create a retpoline thunk array" and its series (5.16 and stable
kernels). Built as a call of or jump to ``__x86_indirect_thunk_REG``, a site may become the indirect branch itself,
with a fence before it, an int3 behind a jump, and padding or prefixes that fill it up; a conditional jump becomes a
short one around it.
"""

from typing import NamedTuple

import numpy as np

from hypervigil.linux.text.code import I64, U8, U64, Mask, branch_targets
from hypervigil.linux.text.instructions import meaning
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import CALL, JMP, Sites, Table, places_in, sizes

SECTION = ".retpoline_sites"

_SITE = 5
_WIDTH = 12
_CS = 0x2E
_MOST_PREFIXES = 4
_OPERAND = 2
_LFENCE = (0x0F, 0xAE, 0xE8)
_REX_B = 0x41
_INDIRECT = 0xFF
_CALL_REG, _JMP_REG = 0xD0, 0xE0
_JCC32, _JCC8 = (0x0F, 0x80), 0x70


def retpoline_sites(place: Place) -> Sites:
    """Every indirect branch must go through a thunk, or through a register; as it was built, where that is known.

    A site has a sixth byte if it was built with a prefix or a condition, which only what was built tells.
    """
    address = places_in(place.code, place.tables.get(SECTION, Table(0, b"")), _SITE)
    rows = place.code.rows(address, _WIDTH)
    found, plain = _through_thunk(place, address, rows), _plain(rows)
    size = sizes(len(address), _SITE)
    near, direct = found.served, plain.register >= 0
    if place.original is not None:
        original = place.original.rows(address, _WIDTH)
        built = _through_thunk(place, address, original)
        size = size + ((original[:, 0] == _CS) | (original[:, 0] == _JCC32[0]))
        near = near & (found.calls == built.calls) & ((found.register == built.register) | (found.register < 0))
        direct = direct & (plain.calls == built.calls) & (plain.register == built.register)
        direct = direct & _leads_around(rows, original, size) & _is_filled_up(rows, plain.end, size)
    else:
        direct = direct & (_is_filled_up(rows, plain.end, size) | _is_filled_up(rows, plain.end, size + 1))

    def expected(row: int) -> tuple[bytes, ...]:
        return () if place.original is None else (place.original.piece(int(address[row]), int(size[row])),)

    return Sites(
        kind="retpoline",
        address=address,
        size=size,
        states=(("by thunk", near), ("plain", direct)),
        legal="a branch to a thunk for indirect branches, or one through a register",
        expected=expected,
    )


class _Branches(NamedTuple):
    """Indirect branches.

    Attributes:
        served: whether each leads to a thunk that serves it.
        register: number of the register that it goes through, -1 where that is not known.
        calls: whether it calls.
        end: how many bytes it has, with what stands before it; 0 where that does not matter.
    """

    served: Mask
    register: I64
    calls: Mask
    end: I64


def _through_thunk(place: Place, address: U64, rows: U8) -> _Branches:
    """``[cs] call|jmp THUNK`` and ``jcc THUNK``."""
    thunks, owner = place.registry.thunks, place.code.owner
    cursor = (rows[:, 0] == _CS).astype(np.int64)
    opcode = _at(rows, cursor, 0)
    conditional = (rows[:, 0] == _JCC32[0]) & (rows[:, 1] & 0xF0 == _JCC32[1])
    near = branch_targets(address + cursor.astype(np.uint64), _shifted(rows, cursor, _SITE), 1)
    target = np.where(conditional, branch_targets(address, rows, 2), near)
    branches = conditional | (opcode == CALL) | (opcode == JMP)
    served = branches & thunks.serves(owner, target)
    return _Branches(served, thunks.register(target), opcode == CALL, np.zeros(len(rows), np.int64))


def _at(rows: U8, cursor: I64, distance: int) -> U8:
    found: U8 = rows[np.arange(len(rows)), np.minimum(cursor + distance, _WIDTH - 1)]
    return found


def _shifted(rows: U8, cursor: I64, width: int) -> U8:
    found: U8 = rows[np.arange(len(rows))[:, None], cursor[:, None] + np.arange(width)]
    return found


def _plain(rows: U8) -> _Branches:
    """``[jcc around] [lfence] call|jmp *REG``, with prefixes of no effect before either instruction."""
    cursor = np.where((rows[:, 0] & 0xF0 == _JCC8) & (rows[:, 1] < _SITE), 2, 0)
    cursor = _behind_prefixes(rows, cursor)
    fenced = np.ones(len(rows), np.bool_)
    for distance, byte in enumerate(_LFENCE):
        fenced &= _at(rows, cursor, distance) == byte
    cursor = _behind_prefixes(rows, cursor + np.where(fenced, len(_LFENCE), 0))
    above = _at(rows, cursor, 0) == _REX_B
    cursor = cursor + above
    operand = _at(rows, cursor, 1)
    calls = operand & 0xF8 == _CALL_REG
    branches = (_at(rows, cursor, 0) == _INDIRECT) & (calls | (operand & 0xF8 == _JMP_REG))
    register = np.where(branches, (operand & 7).astype(np.int64) + 8 * above, -1)
    return _Branches(branches, register, calls, cursor + _OPERAND)


def _leads_around(rows: U8, original: U8, size: I64) -> Mask:
    """Whether a site begins with a jump around the rest exactly where a conditional jump was, by its opposite."""
    around = rows[:, 0] & 0xF0 == _JCC8
    built = (original[:, 0] == _JCC32[0]) & (original[:, 1] & 0xF0 == _JCC32[1])
    opposite = (rows[:, 0] & 0xF == original[:, 1] & 0xF ^ 1) & (rows[:, 1] == size - 2)
    found: Mask = (around == built) & (opposite | ~built)
    return found


def _is_filled_up(rows: U8, end: I64, size: I64) -> Mask:
    """Whether nothing but padding follows a branch, to the end of its site."""
    rests = [bytes(row[low:high]) for row, low, high in zip(rows, end.tolist(), size.tolist(), strict=True)]
    padding = {rest: not meaning(rest, 0) for rest in set(rests)}
    return np.array([padding[rest] for rest in rests], np.bool_)


def _behind_prefixes(rows: U8, cursor: I64) -> I64:
    for _ in range(_MOST_PREFIXES):
        cursor = cursor + (_at(rows, cursor, 0) == _CS)
    return cursor
