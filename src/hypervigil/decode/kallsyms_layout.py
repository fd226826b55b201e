"""Where the names and markers of a kallsyms section lie before its token tables, judged by consistency alone.

The layouts and their sources are in `hypervigil.decode.kallsyms`; the addresses are found by
`hypervigil.decode.kallsyms_values`. Offsets are byte offsets in the buffer; the buffer begins at an address divisible
by 8, so that alignment can be told from an offset.
"""

from itertools import islice
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from hypervigil.core.errors import DecodeError
from hypervigil.decode.kallsyms_holes import I64, U8, Holes
from hypervigil.decode.kallsyms_tokens import MARKER_STEP, NameStream, skip_block, walk_names

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SYMBOLS = 1 << 21
"""More symbols than any kernel has (an allyesconfig kernel has some 600,000)."""

_MIN_BLOCK = 2 * MARKER_STEP  # a length byte and a code each
_MAX_BLOCK = 515 * MARKER_STEP  # two length bytes and 513 uncompressed characters each
_MAX_NAMES = 1 << 24  # bytes
_MAX_PLACES = 1024
_MAX_STARTS = 8192
_MAX_TRIES = 16
_ALIGNMENT = 8
_BIG = 0x80
_SEQUENCE_ENTRY = 3
_TELLING = 8  # so many blocks of names that end where the next begins are no accident
_WITNESSES = 64  # so many blocks are asked where the names begin
_MAX_AGREED = 1024


class Body(msgspec.Struct, frozen=True, eq=False):
    """The part that all layouts share: num_syms, names, markers, and seqs_of_names where it follows them.

    Attributes:
        count: number of symbols.
        num_syms: half-open buffer range, as all ranges here.
        names: the records.
        markers: the markers.
        sequence: `kallsyms_seqs_of_names` when it lies between markers and token table (6.2 and 6.3),
            else None.
        stream: the walked records.
    """

    count: int
    num_syms: tuple[int, int]
    names: tuple[int, int]
    markers: tuple[int, int]
    sequence: tuple[int, int] | None
    stream: NameStream


def each_body(data: U8, table: int) -> "Iterator[Body]":
    """All names and markers that end before the token table at buffer offset `table`, the most likely first.

    Raises:
        DecodeError: no markers there agree with any names before them.
    """
    found = False
    fault = DecodeError("kallsyms_markers", "nothing before the token table fits as markers and names", table)
    for start, count in islice(_marker_tables(data, table), _MAX_TRIES):
        markers = data[start : start + 4 * count].view("<u4").astype(np.int64)
        for names, symbols, num_syms in islice(_name_tables(data, start, markers), _MAX_TRIES):
            try:
                stream = walk_names(data, names, markers, symbols, start)
            except DecodeError as error:
                fault = error
                continue
            found = True
            yield Body(
                count=symbols,
                num_syms=(num_syms, num_syms + 4),
                names=(names, stream.end),
                markers=(start, start + 4 * count),
                sequence=sequence_between(start + 4 * count, table, symbols),
                stream=stream,
            )
    if not found:
        raise fault


def sequence_between(begin: int, table: int, count: int) -> tuple[int, int] | None:
    """The range of `kallsyms_seqs_of_names` where it lies between the markers and the tokens, None where it does not.

    Args:
        begin: buffer offset just past the markers.
        table: buffer offset of the token table.
        count: number of symbols.
    """
    begin = _up(begin, 8)
    return (begin, begin + 3 * count) if table - begin >= _SEQUENCE_ENTRY * count else None


def _marker_tables(data: U8, table: int) -> "Iterator[tuple[int, int]]":
    """Start and number of entries of all that may be markers before `table`.

    The adjacent ones come first, then those with room for exactly a sequence in between.
    """
    reach = min(table, _SEQUENCE_ENTRY * MAX_SYMBOLS + 4 * MAX_SYMBOLS // MARKER_STEP)
    floor = table % 4
    begin = table - floor - (reach - floor) // 4 * 4
    words = data[begin : table - floor].view("<u4")
    steps = np.diff(words.astype(np.int64))
    breaks = np.flatnonzero((steps < _MIN_BLOCK) | (steps > _MAX_BLOCK))
    starts = np.flatnonzero(words == 0)
    ends = np.append(breaks, len(words) - 1)[np.searchsorted(breaks, starts)] + 1
    counts = ends - starts
    gaps = (len(words) - ends) * 4 + floor
    believed = counts <= MAX_SYMBOLS // MARKER_STEP
    adjacent = believed & (gaps < _ALIGNMENT)
    least = _SEQUENCE_ENTRY * ((counts - 1) * MARKER_STEP + 1)
    apart = believed & (counts > 1) & (gaps >= least) & (gaps <= least + _SEQUENCE_ENTRY * MARKER_STEP + 12)
    for position in (*np.flatnonzero(adjacent)[::-1], *np.flatnonzero(apart)[::-1]):
        start, count = begin + 4 * int(starts[position]), int(counts[position])
        yield start, count
        if apart[position]:
            yield start, count - 1  # the sequence may by chance continue the rise


def _name_tables(data: U8, end: int, markers: I64) -> "Iterator[tuple[int, int, int]]":
    """Offset of names, number of symbols, offset of num_syms, for all that fit before markers at `end`.

    The nearest come first: the names after the last marker are few. Where these may be in a hole they cannot be looked
    at; then there must be enough markers to tell.
    """
    last, blocks = int(markers[-1]), len(markers)
    high = end - last
    low = _up(max(8, high - _MAX_BLOCK - 8), 4)
    if low >= high or last > _MAX_NAMES:
        return
    words = data[low - 8 : low - 8 + (high - low + 8) // 4 * 4].view("<u4").astype(np.int64)
    fits = (words > (blocks - 1) * MARKER_STEP) & (words <= blocks * MARKER_STEP)
    places = [
        (names, int(words[position]), num_syms)
        for position in np.flatnonzero(fits)[: -_MAX_PLACES - 1 : -1].tolist()
        for num_syms in (low - 8 + 4 * position,)
        for names in ((num_syms + 4,) if num_syms % 8 else (num_syms + 8, num_syms + 4))
    ]
    yield from (place for place in places if _tail_fits(data, place[0] + last, place[1], end))
    if blocks >= _TELLING:
        holes = Holes(data, low - 8, end)
        yield from (place for place in places if holes.hit(place[0] + last, end))
        yield from _counted(data, np.arange(low, high, 4), holes, end, markers)


def _counted(data: U8, starts: I64, holes: Holes, end: int, markers: I64) -> "Iterator[tuple[int, int, int]]":
    """As `_name_tables`, where num_syms is in a hole: whole blocks tell where the names begin, the last how many.

    Args:
        data: the buffer.
        starts: where the names may begin.
        holes: what is lost before the markers.
        end: buffer offset of the markers.
        markers: the markers.
    """
    starts = starts[holes.touch(starts - 8, starts)][-_MAX_STARTS:]
    if not len(starts):
        return
    edges = int(starts[0]) + markers[:-1], int(starts[-1]) + markers[1:]
    sound = np.flatnonzero(~holes.touch(*edges))
    if len(sound) < _TELLING // 2:
        return
    for asked, block in enumerate(sound[:: -(len(sound) // _WITNESSES + 1)].tolist()):
        starts = starts[skip_block(data, starts + markers[block]) == starts + markers[block + 1]]
        if len(starts) <= 1 or (asked and len(starts) > _MAX_AGREED):
            break
    for names in starts[::-1][:_MAX_AGREED].tolist():
        count = _tail_count(data, names + int(markers[-1]), end)
        if count:
            yield names, (len(markers) - 1) * MARKER_STEP + count, names - (4 if names % 8 else 8)


def _tail_count(data: U8, at: int, end: int) -> int:
    """How many records there are from the last marker, at `at`, to where the markers begin; 0 if they do not fit."""
    for count in range(MARKER_STEP + 1):
        if 0 <= end - at < _ALIGNMENT and not data[at:end].any():
            return count
        if at + 2 > end or not data[at]:
            return 0
        size = int(data[at])
        at += 1 + size if size < _BIG else 2 + (size & (_BIG - 1)) + (int(data[at + 1]) << 7)
    return 0


def _tail_fits(data: U8, at: int, count: int, end: int) -> bool:
    """Whether the records after the last marker, at `at`, end where the markers begin: a quick look."""
    for _ in range((count - 1) % MARKER_STEP + 1):
        if at + 2 > end or not data[at]:
            return False
        size = int(data[at])
        at += 1 + size if size < _BIG else 2 + (size & (_BIG - 1)) + (int(data[at + 1]) << 7)
    return 0 <= end - at < _ALIGNMENT


def _up(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
