"""Going through all of memory once, without keeping it."""

import mmap
from collections.abc import Iterator

from hypervigil.core.errors import MissingMemory
from hypervigil.core.units import PAGE_SIZE, PhysAddr
from hypervigil.memory.reader import PhysRange, Reader


def each_chunk(reader: Reader, size: int) -> Iterator[tuple[PhysAddr, memoryview]]:
    """All of memory in pieces of at most `size` bytes that begin on page borders, ascending.

    A piece is valid until the next one is asked for. Pages of a mapped file are let go again, so that a scan of an
    image does not count as memory in use.
    """
    for address, run in reader.each_run():
        for at in range(-address % PAGE_SIZE, len(run), size):
            yield PhysAddr(address + at), run[at : at + size]
            if isinstance(run.obj, mmap.mmap):
                _let_go(run.obj)


def range_of(reader: Reader, address: int) -> PhysRange:
    """The range of memory that holds `address`.

    Raises:
        MissingMemory: none does.
    """
    for limits in reader.ranges:
        if limits.start <= address < limits.end:
            return limits
    raise MissingMemory(address, 1)


def _let_go(mapping: mmap.mmap) -> None:
    mapping.madvise(mmap.MADV_DONTNEED)
