"""Bytes as a person compares them: sixteen a row, what stands there against what should.

Works on the hexadecimal digits that an `Exhibit` carries. Any string is accepted: a report read from a file may hold
digits that are none, and then there is nothing to draw.
"""

from collections.abc import Iterator
from itertools import islice

import msgspec

ROW = 16
"""Bytes in a row."""

_PRINTABLE = range(0x20, 0x7F)


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One byte of a row: two hexadecimal digits, its ASCII form or ``.``, and whether the other side differs."""

    digits: str
    ascii: str
    differs: bool


class Row(msgspec.Struct, frozen=True):
    """One row of both sides.

    Attributes:
        address: address of the first byte, or its offset where the address is not known.
        found: what stands there.
        expected: what should stand there; empty if that is not known.
    """

    address: int
    found: tuple[Cell, ...]
    expected: tuple[Cell, ...]


def each_row(found: str, expected: str, address: int | None, *, rows: int = 32) -> Iterator[Row]:
    """The first `rows` rows of two hexadecimal strings laid side by side.

    A byte differs when the other side has another value or ends before it; with no other side nothing differs.
    Digits that do not decode count as no bytes.
    """
    old, new = octets(expected), octets(found)
    for start in islice(range(0, max(len(old), len(new)), ROW), rows):
        stop = start + ROW
        yield Row(
            (address or 0) + start,
            tuple(_cells(new[start:stop], old[start:stop], compare=bool(old))),
            tuple(_cells(old[start:stop], new[start:stop], compare=bool(new))),
        )


def octets(digits: str) -> bytes:
    """The bytes that hexadecimal `digits` spell, or none if they spell none."""
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return b""


def rows_of(found: str, expected: str) -> int:
    """How many rows `each_row` would need for all bytes."""
    return -(-max(len(octets(found)), len(octets(expected))) // ROW)


def _cells(side: bytes, other: bytes, *, compare: bool) -> Iterator[Cell]:
    for index, value in enumerate(side):
        differs = compare and (index >= len(other) or other[index] != value)
        yield Cell(digits=f"{value:02x}", ascii=chr(value) if value in _PRINTABLE else ".", differs=differs)
