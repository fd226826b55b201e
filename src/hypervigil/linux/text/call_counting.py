"""Calls that are counted, against return stack underflow (arch/x86/kernel/callthunks.c).

e81dc127ef69 "x86/callthunks: Add call patching for call depth tracking" (6.2): on some processors every direct call is
moved to a few bytes before its function, into padding, where code was put that counts it.
"""

import numpy as np

from hypervigil.linux.text.code import Mask, branch_targets, is_any
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import CALL, Sites, Table, places_in, sizes
from hypervigil.linux.text.thunks import COUNT, COUNTING, NOP, counted

SECTION = ".call_sites"

_SITE = 5


def counted_calls(place: Place) -> Sites:
    """Every direct call must be as built, or lead to the code that counts it for the same function."""
    address = places_in(place.code, place.tables.get(SECTION, Table(0, b"")), _SITE)
    rows = place.code.rows(address, _SITE)
    call = rows[:, 0] == CALL
    address, rows = address[call], rows[call]
    built = rows if place.original is None else place.original.rows(address, _SITE)
    target, function = branch_targets(address, rows, 1), branch_targets(address, built, 1)
    moved = counted(place.system.kernel.space, target, function)

    def expected(row: int) -> tuple[bytes, ...]:
        return (built[row].tobytes(),)

    return Sites(
        kind="call",
        address=address,
        size=sizes(len(address), _SITE),
        states=(("as built", target == function), ("counted", moved & (target != function))),
        legal="the call it was built as, or one of the code that counts it",
        expected=expected,
    )


def counting_code(place: Place) -> Sites:
    """Code that counts calls may stand in padding before a function."""
    symbols = place.symbols
    inside = symbols.between(place.code.start, place.code.end)
    starts = np.array(symbols.addresses[inside.start : inside.stop], np.uint64)
    places, widths = [np.array([], np.uint64)], [np.array([], np.int64)]
    for opening, width in COUNTING if place.original is not None else ():
        at = starts - np.uint64(width)
        at = at[place.code.holds(at, width)]
        rows = place.code.rows(at, width)
        at = at[is_any(rows, opening) & (rows[:, -1] == COUNT)]
        places.append(at)
        widths.append(sizes(len(at), width))
    address, size = np.concatenate(places), np.concatenate(widths)
    padding: Mask = np.ones(len(address), np.bool_)
    if place.original is not None:
        padding = (place.original.rows(address, min(size, default=1)) == NOP).all(axis=1)

    def expected(row: int) -> tuple[bytes, ...]:
        return (bytes([NOP]) * int(size[row]),)

    return Sites(
        kind="padding",
        address=address,
        size=size,
        states=(("counts calls", padding),),
        legal="padding, or code that counts calls",
        expected=expected,
    )
