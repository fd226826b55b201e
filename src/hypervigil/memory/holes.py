"""A stretch of physical memory in one piece for those who search it, with zero pages where memory is not there.

Whoever asks must take a page of zeros for a lost one, as the decoder of kallsyms does: a raw image has such pages where
other formats have holes.
"""

from collections.abc import Iterator

from hypervigil.core.errors import MissingMemory
from hypervigil.core.units import PAGE_SIZE, PhysAddr
from hypervigil.memory.reader import PhysRange, Reader

MAX_STRETCH = 1 << 28
"""Bytes of one stretch."""


def view_over_holes(memory: Reader, low: PhysAddr, high: int) -> memoryview:
    """The bytes of ``[low, high)``, cut where memory ends; a page that is not there whole is zero from end to end.

    Args:
        memory: the memory.
        low: the start of a page.
        high: the end, exclusive; at most `MAX_STRETCH` bytes further on.

    Raises:
        MissingMemory: no page of it is there, or it is longer than that.
    """
    high = min(high, max((limits.end for limits in memory.ranges), default=0))
    if not low < high <= low + MAX_STRETCH:
        raise MissingMemory(low, high - low)
    try:
        return memory.view(low, high - low)
    except MissingMemory:
        pieces = list(_each_whole(memory.ranges, low, high))
    if not pieces:
        raise MissingMemory(low, high - low)
    data = bytearray(high - low)
    for start, end in pieces:
        data[start - low : end - low] = memory.view(PhysAddr(start), end - start)
    return memoryview(data)


def _each_whole(ranges: tuple[PhysRange, ...], low: int, high: int) -> Iterator[tuple[int, int]]:
    """Half-open runs of whole pages in ``[low, high)``; ranges that touch may share a page."""
    start = end = -1
    for limits in ranges:
        if limits.start == end:
            end = limits.end
            continue
        yield from _cut(start, end, low, high)
        start, end = limits.start, limits.end
    yield from _cut(start, end, low, high)


def _cut(start: int, end: int, low: int, high: int) -> Iterator[tuple[int, int]]:
    first, last = max(low, -(-start // PAGE_SIZE) * PAGE_SIZE), min(high, end // PAGE_SIZE * PAGE_SIZE)
    if first < last:
        yield first, last
