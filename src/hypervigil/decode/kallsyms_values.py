"""The addresses of a kallsyms section's symbols: where they lie, and what they count from, judged by consistency alone.

The layouts and their sources are in `hypervigil.decode.kallsyms`. Offsets are byte offsets in the buffer, which begins
at an address divisible by 8.
"""

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from hypervigil.core.errors import DecodeError
from hypervigil.decode.kallsyms_holes import I64, U8, Holes, Mask
from hypervigil.decode.kallsyms_layout import Body

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEQUENCE_ENTRY = 3
_KERNEL_HALF = 0xFFFF_8000_0000_0000
_SIGN = np.uint64(1 << 63)
_TOLERATED = 64  # one entry in so many may be out of order: tampering, not another layout
_RISING = 16  # one address in so many is above the one before
_FEW = 8  # so many accidents, or symbols that somebody moved
_PERCPU = "absolute per-CPU values"


class Values(msgspec.Struct, frozen=True, eq=False):
    """The addresses of the symbols.

    Attributes:
        addresses: uint64; relative to the start of the buffer, modulo 2**64, when `place_relative`.
        name: the kernel's name of the table, `kallsyms_offsets` or `kallsyms_addresses`.
        range: half-open buffer range of the table.
        base: value of `kallsyms_relative_base`, None where the layout has none or it is lost.
        base_range: where it lies.
        fixed: where the relative base is lost: symbols whose address does not depend on it. The others count from it.
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
    fixed: Mask | None = None
    sequence: tuple[int, int] | None = None
    place_relative: bool = False
    lost: Mask = msgspec.field(default_factory=lambda: np.zeros(0, np.bool_))
    unsorted: tuple[int, ...] = ()
    how: str = ""

    def in_order(self) -> npt.NDArray[np.uint64]:
        """Numbers that rise where the addresses do, though what they count from is not known yet."""
        if self.place_relative:
            return self.addresses ^ _SIGN  # distances of either sign
        if self.fixed is not None:
            return np.where(self.fixed, self.addresses, self.addresses + np.uint64(_KERNEL_HALF))
        return self.addresses


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
        order = values.in_order()[kept]
        unsorted = np.flatnonzero(order[1:] < order[:-1]) + 1
        if len(unsorted) <= body.count // _TOLERATED:
            misplaced = tuple(kept[list(_misplaced(order, unsorted))].tolist())
            return msgspec.structs.replace(values, unsorted=misplaced, lost=lost)
    raise DecodeError("kallsyms_offsets", "no table of addresses in order before or after the names", index_end)


def _misplaced(order: npt.NDArray[np.uint64], drops: npt.NDArray[np.intp]) -> tuple[int, ...]:
    """Of each position whose value is below the one before, which of the two is misplaced.

    Without a value that is too high the others are in order; a value that is too low is out of order itself.
    """
    before = np.maximum(drops - 2, 0)
    spikes = (drops > 1) & (order[drops] >= order[before])
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
    yield from _unbased(data, (before - 8 - 4 * count) & ~7, before - 8, count)
    for values in _unbased(data, after, base, count):
        yield msgspec.structs.replace(values, sequence=_room(data, base + 8, count))


def _based(data: U8, start: int, base_at: int, count: int) -> "Iterator[Values]":
    """32-bit offsets from a relative base, with and without the rule for per-CPU symbols."""
    if start < 0 or base_at + 8 > len(data):
        return
    base = int(data[base_at : base_at + 8].view("<u8")[0])
    if base >= _KERNEL_HALF:
        yield from _offsets(data, start, (base_at, base_at + 8), count, base)


def _unbased(data: U8, start: int, base_at: int, count: int) -> "Iterator[Values]":
    """The same where the relative base is in a hole, for offsets that are nothing else.

    Zeros are in order too, so many must rise. Offsets from their own place may be, but fall where symbols share an
    address.
    """
    if start < 0 or base_at + 8 > len(data) or not Holes(data, base_at, base_at + 8).hit(base_at, base_at + 8):
        return
    kept = ~_lost_values(data, (start, start + 4 * count), count)
    for values in _offsets(data, start, (base_at, base_at + 8), count, None):
        order = values.in_order()[kept]
        rising, falling = (int(np.count_nonzero(step)) for step in (order[1:] > order[:-1], order[1:] < order[:-1]))
        if _RISING * rising > count and falling <= _FEW:
            yield values


def _offsets(data: U8, start: int, base_range: tuple[int, int], count: int, base: int | None) -> "Iterator[Values]":
    offsets = data[start : start + 4 * count].view("<u4").astype(np.uint64)
    zero = np.uint64(base or 0)
    relative = Values(
        zero + offsets,
        "kallsyms_offsets",
        (start, start + 4 * count),
        base=base,
        base_range=base_range,
        fixed=np.zeros(count, np.bool_) if base is None else None,
        how="offsets from a relative base",
    )
    yield relative
    signed = offsets >> np.uint64(31) != 0
    yield msgspec.structs.replace(
        relative,
        addresses=np.where(signed, zero + (np.uint64(0xFFFF_FFFF) - offsets), offsets),
        fixed=~signed if base is None else None,
        how=f"{relative.how}, {_PERCPU}",
    )


def _plain(data: U8, start: int, count: int) -> "Iterator[Values]":
    """64-bit addresses (CONFIG_KALLSYMS_BASE_RELATIVE=n, gone in 6.11)."""
    if start < 0 or start + 8 * count > len(data):
        return
    addresses = data[start : start + 8 * count].view("<u8").astype(np.uint64)
    if int(addresses.max()) >= _KERNEL_HALF:
        yield Values(addresses, "kallsyms_addresses", (start, start + 8 * count), how="addresses")


def _placed(data: U8, start: int, count: int) -> "Iterator[Values]":
    """32-bit offsets from their own place; only the sequence that follows can confirm them, so it must.

    It does not tell them from offsets from a base that is lost, where their number is odd. Symbols of one address do.
    """
    sequence = _room(data, start + 4 * count, count)
    if sequence is None or sequence_faults(data, sequence, count) > count // _TOLERATED:
        return
    offsets = data[start : start + 4 * count].view("<i4").astype(np.int64)
    addresses = offsets + start + 4 * np.arange(count, dtype=np.int64)
    base = _up(start + 4 * count, 8)
    if not data[base : base + 8].any() and np.count_nonzero(np.diff(addresses) == 0) <= _FEW:
        return
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
