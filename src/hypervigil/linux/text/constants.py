"""Constants that are written into instructions at boot (arch/x86/include/asm/runtime-const.h).

e3c92e81711d "runtime constants: add x86 architecture support" (6.11): sections ``runtime_ptr_NAME`` and
``runtime_shift_NAME`` name the immediate operands, 8 bytes or one, that take the value of the variable of that name.
They are freed after boot. A variable that is read in no other way is not kept; then all its operands are the same.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from hypervigil.linux.text.code import U8, U64, Mask, gather
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import Sites, places_in

SECTION = "runtime_*"

_WIDTHS = {"runtime_ptr_": 8, "runtime_shift_": 1}


class _Operands(NamedTuple):
    address: U64
    width: int
    value: bytes


def constant_sites(place: Place) -> Sites:
    """Every such operand must hold the value of its variable."""
    found = [one for name in sorted(place.tables) for one in _operands(place, name)]
    address = np.concatenate([np.array([], np.uint64), *(one.address for one in found)])
    size = np.concatenate([np.array([], np.int64), *(np.full(len(one.address), one.width) for one in found)])
    values = [one.value for one in found for _ in range(len(one.address))]
    lawful = [np.array([], np.bool_), *(_equal(place.code.rows(one.address, one.width), one.value) for one in found)]

    def expected(row: int) -> tuple[bytes, ...]:
        return (values[row],)

    return Sites(
        kind="runtime constant",
        address=address,
        size=size,
        states=(("value", np.concatenate(lawful)),),
        legal="the value of its variable",
        expected=expected,
    )


def _operands(place: Place, section: str) -> list[_Operands]:
    for prefix, width in _WIDTHS.items():
        if section.startswith(prefix):
            places = places_in(place.code, place.tables[section], width)
            return [_Operands(places, width, _value(place, section.removeprefix(prefix), places, width))]
    return []


def _value(place: Place, name: str, places: U64, width: int) -> bytes:
    variable = place.symbol(name)
    if variable is not None:
        read = gather(place.system.kernel.space, np.array([variable], np.uint64), width)
        if read.seen[0]:
            return bytes(read.rows[0])
    values = Counter(bytes(row) for row in place.code.rows(places, width))
    ranked = sorted((count, value) for value, count in values.items())
    return ranked[-1][1] if ranked else bytes(width)


def _equal(rows: U8, value: bytes) -> Mask:
    found: Mask = (rows == np.frombuffer(value, np.uint8)).all(axis=1)
    return found
