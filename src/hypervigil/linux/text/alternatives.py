"""Alternatives: instructions that were chosen for this processor at boot (arch/x86/kernel/alternative.c).

``struct alt_instr`` (arch/x86/include/asm/alternative.h) begins with the distances to the instruction and to its
replacement and ends with the lengths of both; in between its layout changed (6.3: flags, 14 bytes). Several entries
may speak of one place: each replaces what the one before it left. What stood there at first is not kept in memory.
"""

from typing import NamedTuple

import numpy as np

from hypervigil.linux.text.code import U64, Code, Mask, moved
from hypervigil.linux.text.instructions import each_branch, meaning
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import Sites, Table, column

SECTION = ".altinstructions"

_REPLACEMENT_AT = 4
_LEAST_ENTRY = 12


class Alternative(NamedTuple):
    """One place and what may stand there.

    Attributes:
        address: virtual address of the place.
        size: its bytes.
        replacements: ``(address, size)`` of each replacement; size 0 stands for nothing but padding.
    """

    address: int
    size: int
    replacements: tuple[tuple[int, int], ...]


def alternative_sites(place: Place) -> Sites:
    """Every place must hold one of its replacements, or what was there before: known from a package only."""
    found = alternatives(place)
    address = np.array([one.address for one in found], np.uint64)
    replaced: Mask = np.array([is_replaced(place.code, one) for one in found], np.bool_)
    original = place.original
    if original is None:
        built = np.array([_plausible(place, one) for one in found], np.bool_)
    else:
        built = np.array([is_same(place.code, original, one) for one in found], np.bool_)

    def expected(row: int) -> tuple[bytes, ...]:
        one = found[row]
        first = () if original is None else (original.piece(one.address, one.size),)
        return (*first, *(place.code.piece(at, size) for at, size in one.replacements if size))

    return Sites(
        kind="alternative",
        address=address,
        size=np.array([one.size for one in found], np.int64),
        states=(("replaced", replaced), ("as built", built & ~replaced)),
        legal="the instructions it was built with or a listed replacement",
        expected=expected,
    )


def alternatives(place: Place) -> list[Alternative]:
    """The places of an object's table of alternatives, each once, ascending.

    Raises:
        MissingDescription: the type of its entries is not known.
    """
    table = place.tables.get(SECTION, Table(0, b""))
    width = place.system.kernel.type("struct alt_instr").size or _LEAST_ENTRY
    at, distance = column(table, width, 0)
    address = moved(at, distance)
    replacement = moved(*column(table, width, _REPLACEMENT_AT))
    lengths = np.frombuffer(table.data, np.uint8, len(address) * width).reshape(len(address), width)[:, -2:]
    merged: dict[int, list[tuple[int, int, int]]] = {}
    for row in np.flatnonzero(_sound(place.code, address, lengths[:, 0].astype(np.int64))).tolist():
        entry = (int(lengths[row, 0]), int(replacement[row]), int(lengths[row, 1]))
        merged.setdefault(int(address[row]), []).append(entry)
    return [
        Alternative(one, max(size for size, _, _ in entries), tuple((where, size) for _, where, size in entries))
        for one, entries in sorted(merged.items())
    ]


def _sound(code: Code, address: U64, size: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Mask:
    found: Mask = (size > 0) & code.holds(address, size)
    return found


def is_replaced(code: Code, one: Alternative) -> bool:
    """Whether a place holds one of its replacements."""
    found = code.piece(one.address, one.size)
    wanted = [code.piece(at, size) for at, size in one.replacements]
    if any(found.startswith(text) and text and _padded(found[len(text) :]) for text in wanted):
        return True
    mine = meaning(found, one.address)
    return any(mine == meaning(text, at) for text, (at, _) in zip(wanted, one.replacements, strict=True))


def is_same(code: Code, original: Code, one: Alternative) -> bool:
    """Whether a place still does what it was built to do."""
    found, built = code.piece(one.address, one.size), original.piece(one.address, one.size)
    return found == built or meaning(found, one.address) == meaning(built, one.address)


def _plausible(place: Place, one: Alternative) -> bool:
    """Whether what a place holds may be what it was built with: no branch out of it leads to foreign code."""
    targets = [target for _, target in each_branch(place.code.piece(one.address, one.size), one.address)]
    return not place.registry.landing.refuses(place.code.owner, np.array(targets, np.uint64)).any()


def _padded(rest: bytes) -> bool:
    return not rest or not meaning(rest, 0)
