"""Where the tables of a kallsyms section lie around its token tables, judged by consistency alone.

The layouts and their sources are in `hypervigil.decode.kallsyms`; this module finds them. Offsets are
byte offsets in the buffer; the buffer begins at an address divisible by 8, so that alignment can be told
from an offset.
"""

from itertools import islice
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from hypervigil.core.errors import DecodeError
from hypervigil.decode.kallsyms_holes import I64, U8, Holes, Mask
from hypervigil.decode.kallsyms_tokens import MARKER_STEP, NameStream, walk_names

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SYMBOLS = 1 << 21
"""More symbols than any kernel has (an allyesconfig kernel has some 600,000)."""

_MIN_BLOCK = 2 * MARKER_STEP  # a length byte and a code each
_MAX_BLOCK = 515 * MARKER_STEP  # two length bytes and 513 uncompressed characters each
_MAX_NAMES = 1 << 24  # bytes
_MAX_PLACES = 1024
_MAX_TRIES = 16
_ALIGNMENT = 8
_BIG = 0x80
_SEQUENCE_ENTRY = 3
_KERNEL_HALF = 0xFFFF_8000_0000_0000
_TELLING = 8  # so many blocks of names that end where the next begins are no accident
_TOLERATED = 64  # one entry in so many may be out of order: tampering, not another layout
_PERCPU = "absolute per-CPU values"


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


class Values(msgspec.Struct, frozen=True, eq=False):
    """The addresses of the symbols.

    Attributes:
        addresses: uint64; relative to the start of the buffer, modulo 2**64, when `place_relative`.
        name: the kernel's name of the table, `kallsyms_offsets` or `kallsyms_addresses`.
        range: half-open buffer range of the table.
        base: value of `kallsyms_relative_base`, None where the layout has none.
        base_range: where it lies.
        sequence: `kallsyms_seqs_of_names` when it follows the values, else None.
        place_relative: whether each value counts from its own place.
        lost: symbols whose value is lost.
        unsorted: positions that are out of order, ascending; few, or the layout would not have been accepted.
        how: how it was recognised.
    """

    addresses: npt.NDArray[np.uint64]
    name: str
    range: tuple[int, int]
    base: int | None = None
    base_range: tuple[int, int] | None = None
    sequence: tuple[int, int] | None = None
    place_relative: bool = False
    lost: Mask = msgspec.field(default_factory=lambda: np.zeros(0, np.bool_))
    unsorted: tuple[int, ...] = ()
    how: str = ""


def find_body(data: U8, table: int) -> Body:
    """The names and markers that end before the token table at buffer offset `table`.

    Raises:
        DecodeError: no markers there agree with any names before them.
    """
    fault = DecodeError("kallsyms_markers", "nothing before the token table fits as markers and names", table)
    for start, count in islice(_marker_tables(data, table), _MAX_TRIES):
        markers = data[start : start + 4 * count].view("<u4").astype(np.int64)
        for names, symbols, num_syms in islice(_name_tables(data, start, markers), _MAX_TRIES):
            try:
                stream = walk_names(data, names, markers, symbols, start)
            except DecodeError as error:
                fault = error
                continue
            return Body(
                count=symbols,
                num_syms=(num_syms, num_syms + 4),
                names=(names, stream.end),
                markers=(start, start + 4 * count),
                sequence=_sequence_between(start + 4 * count, table, symbols),
                stream=stream,
            )
    raise fault


def find_values(data: U8, body: Body, index_end: int) -> Values:
    """The addresses of the symbols, before num_syms or after the token index that ends at `index_end`.

    Raises:
        DecodeError: no table at any of the five places is in order.
    """
    for values in _value_tables(data, body, index_end):
        lost = _lost_values(data, values.range, body.count)
        kept = np.flatnonzero(~lost)
        if len(kept) <= body.count // 2:
            continue
        order = (values.addresses.view(np.int64) if values.place_relative else values.addresses)[kept]
        unsorted = np.flatnonzero(order[1:] < order[:-1]) + 1
        if len(unsorted) <= body.count // _TOLERATED:
            misplaced = tuple(kept[list(_misplaced(order, unsorted))].tolist())
            return msgspec.structs.replace(values, unsorted=misplaced, lost=lost)
    raise DecodeError("kallsyms_offsets", "no table of addresses in order before or after the names", index_end)


def _misplaced(order: npt.NDArray[np.generic], drops: npt.NDArray[np.intp]) -> tuple[int, ...]:
    """Of each position whose value is below the one before, which of the two is misplaced.

    Without a value that is too high the others are in order; a value that is too low is out of order itself.
    """
    before = np.maximum(drops - 2, 0)
    spikes = (drops > 1) & (order[drops] >= order[before])  # type: ignore[operator] # numbers of either sign
    return tuple(sorted(set((drops - spikes).tolist())))


def _lost_values(data: U8, where: tuple[int, int], count: int) -> Mask:
    """Which of `count` entries of a table have a byte in a hole."""
    width = (where[1] - where[0]) // count
    starts = where[0] + width * np.arange(count, dtype=np.int64)
    return Holes(data, *where).touch(starts, starts + width)


def read_sequence(data: U8, where: tuple[int, int], count: int) -> I64:
    """The three-byte big-endian numbers at `where`: positions of symbols in the order of their names, -1 if lost."""
    raw = data[where[0] : where[1]].reshape(-1, _SEQUENCE_ENTRY).astype(np.int64)
    numbers = (raw[:, 0] << 16) | (raw[:, 1] << 8) | raw[:, 2]
    numbers[_lost_values(data, where, count)] = -1
    return numbers


def sequence_faults(data: U8, where: tuple[int, int], count: int) -> int:
    """How many of `count` symbols a sequence certainly leaves out."""
    numbers = read_sequence(data, where, count)
    seen = np.zeros(count, bool)
    seen[numbers[(numbers >= 0) & (numbers < count)]] = True
    return max(0, count - int(seen.sum()) - int((numbers < 0).sum()))


def _sequence_between(begin: int, table: int, count: int) -> tuple[int, int] | None:
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
        holes = Holes(data, low, end)
        yield from (place for place in places if holes.hit(place[0] + last, end))


def _tail_fits(data: U8, at: int, count: int, end: int) -> bool:
    """Whether the records after the last marker, at `at`, end where the markers begin: a quick look."""
    for _ in range((count - 1) % MARKER_STEP + 1):
        if at + 2 > end:
            return False
        size = int(data[at])
        at += 1 + size if size < _BIG else 2 + (size & (_BIG - 1)) + (int(data[at + 1]) << 7)
    return 0 <= end - at < _ALIGNMENT


def _value_tables(data: U8, body: Body, index_end: int) -> "Iterator[Values]":
    """All tables of addresses that may be there; the ones that are hard to mistake come first."""
    count, before, after = body.count, body.num_syms[0], _up(index_end, 4)
    yield from _based(data, (before - 8 - 4 * count) & ~7, before - 8, count)
    yield from _plain(data, before - 8 * count, count)
    base = _up(after + 4 * count, 8)
    for values in _based(data, after, base, count):
        yield msgspec.structs.replace(values, sequence=_room(data, base + 8, count))
    for values in _plain(data, _up(after, 8), count):
        yield msgspec.structs.replace(values, sequence=_room(data, values.range[1], count))
    yield from _placed(data, after, count)


def _based(data: U8, start: int, base_at: int, count: int) -> "Iterator[Values]":
    """32-bit offsets from a relative base, with and without the rule for per-CPU symbols."""
    if start < 0 or base_at + 8 > len(data):
        return
    base = int(data[base_at : base_at + 8].view("<u8")[0])
    if base < _KERNEL_HALF:
        return
    offsets = data[start : start + 4 * count].view("<u4").astype(np.uint64)
    relative = Values(
        np.uint64(base) + offsets,
        "kallsyms_offsets",
        (start, start + 4 * count),
        base=base,
        base_range=(base_at, base_at + 8),
        how="offsets from a relative base",
    )
    yield relative
    signed = offsets >> np.uint64(31) != 0
    percpu = np.where(signed, np.uint64(base) + (np.uint64(0xFFFF_FFFF) - offsets), offsets)
    yield msgspec.structs.replace(relative, addresses=percpu, how=f"{relative.how}, {_PERCPU}")


def _plain(data: U8, start: int, count: int) -> "Iterator[Values]":
    """64-bit addresses (CONFIG_KALLSYMS_BASE_RELATIVE=n, gone in 6.11)."""
    if start < 0 or start + 8 * count > len(data):
        return
    addresses = data[start : start + 8 * count].view("<u8").astype(np.uint64)
    if int(addresses.max()) >= _KERNEL_HALF:
        yield Values(addresses, "kallsyms_addresses", (start, start + 8 * count), how="addresses")


def _placed(data: U8, start: int, count: int) -> "Iterator[Values]":
    """32-bit offsets from their own place; only the sequence that follows can confirm them, so it must."""
    sequence = _room(data, start + 4 * count, count)
    if sequence is None or sequence_faults(data, sequence, count) > count // _TOLERATED:
        return
    offsets = data[start : start + 4 * count].view("<i4").astype(np.int64)
    addresses = offsets + start + 4 * np.arange(count, dtype=np.int64)
    yield Values(
        addresses.view(np.uint64),
        "kallsyms_offsets",
        (start, start + 4 * count),
        sequence=sequence,
        place_relative=True,
        how="offsets from their own place",
    )


def _room(data: U8, start: int, count: int) -> tuple[int, int] | None:
    """The range of a sequence of `count` symbols at `start`, if the buffer reaches that far."""
    end = start + _SEQUENCE_ENTRY * count
    return (start, end) if end <= len(data) else None


def _up(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
