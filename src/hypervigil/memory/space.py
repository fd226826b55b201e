"""The kernel's virtual address space: reading by virtual address, and where the bytes stand in the evidence.

In a raw image an all-zero page cannot be told from a missing one. No page that the kernel keeps live data in is
zero from end to end, so here such a page is missing memory, unless the caller says that zero is fine.
"""

import itertools
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from hypervigil.core.errors import MissingMemory
from hypervigil.core.evidence import Span
from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.memory.pagetable import translate
from hypervigil.memory.reader import PhysRange, Reader

_ZERO = bytes(PAGE_SIZE)
_MASK = PAGE_SIZE - 1
_MAX_READ = 1 << 28
_TOP = 1 << 64


class _Page(NamedTuple):
    frame: int
    zero: bool


class AddressSpace:
    """Virtual memory through one set of page tables.

    Args:
        memory: the physical memory.
        root: physical address of the top-level table.
        levels: 4 or 5.
    """

    def __init__(self, memory: Reader, root: PhysAddr, levels: int) -> None:
        self.memory = memory
        self.root = root
        self.levels = levels
        self._pages: dict[int, _Page] = {}

    def physical(self, address: VirtAddr) -> PhysAddr:
        """Translate one address.

        Raises:
            MissingMemory: it is not mapped, or a page table is missing.
        """
        return PhysAddr(self._page(address & ~_MASK).frame + (address & _MASK))

    def read(self, address: VirtAddr, size: int, *, zero_ok: bool = False) -> bytes:
        """Read exactly `size` bytes.

        Raises:
            MissingMemory: a page is not mapped, not in the image, or zero where zero cannot be told from missing.
        """
        self._bounded(address, size)
        inside = address & _MASK
        if inside + size <= PAGE_SIZE:
            return self.memory.read(PhysAddr(self._frame(address - inside, zero_ok=zero_ok) + inside), size)
        parts = []
        for start, length in _pieces(address, size):
            frame = self._frame(start & ~_MASK, zero_ok=zero_ok)
            parts.append(self.memory.read(PhysAddr(frame + (start & _MASK)), length))
        return b"".join(parts)

    def each_piece(self, address: VirtAddr, size: int) -> "list[tuple[VirtAddr, int, bytes | None]]":
        """Read in pieces of at most a leaf of the page tables, ascending.

        What is missing, or cannot be told from missing, is None, in whole pages but for both ends.
        """
        self._bounded(address, size)
        found: list[tuple[VirtAddr, int, bytes | None]] = []
        at, end = int(address), address + size
        while at < end:
            frame, length = self._leaf(at)
            length = min(length, end - at)
            if frame is None:
                found.append((VirtAddr(at), length, None))
            else:
                found += self._each_present(at, frame, length)
            at += length
        return found

    def _leaf(self, address: int) -> tuple[int | None, int]:
        """Where an address stands, and how many bytes from it on stand together; None if nowhere."""
        inside = address & _MASK
        page = self._pages.get(address - inside)
        if page is not None:
            return page.frame + inside, PAGE_SIZE - inside
        try:
            mapping = translate(self.memory, self.root, self.levels, VirtAddr(address))
        except MissingMemory:
            return None, PAGE_SIZE - inside
        return mapping.address, mapping.rest

    def _each_present(self, address: int, frame: int, size: int) -> Iterator[tuple[VirtAddr, int, bytes | None]]:
        """What stands together, cut where it is not in the evidence or zero where that cannot be told from missing."""
        for low, high, there in _parts(self.memory.ranges, frame, frame + size):
            start = address + low - frame
            if not there:
                yield VirtAddr(start), high - low, None
                continue
            try:
                data = self.memory.read(PhysAddr(low), high - low)
            except MissingMemory:  # a recording has the range, and not every page of it
                yield from self._each_page(start, high - low)
                continue
            if not self.memory.zero_is_missing:
                yield VirtAddr(start), high - low, data
                continue
            for at, length, zero in self._zero_runs(start, low, data):
                yield VirtAddr(at), length, None if zero else data[at - start : at - start + length]

    def _each_page(self, address: int, size: int) -> Iterator[tuple[VirtAddr, int, bytes | None]]:
        for start, length in _pieces(address, size):
            try:
                yield VirtAddr(start), length, self.read(VirtAddr(start), length)
            except MissingMemory:
                yield VirtAddr(start), length, None

    def _zero_runs(self, address: int, frame: int, data: bytes) -> Iterator[tuple[int, int, bool]]:
        """Runs of pages that are zero from end to end, or not; pages that are cut are looked at whole."""
        run: tuple[int, int, bool] | None = None
        for start, length in _pieces(address, len(data)):
            piece = data[start - address : start - address + length]
            zero = piece == _ZERO if length == PAGE_SIZE else self._is_zero(frame + start - address)
            if run is not None and run[2] == zero:
                run = (run[0], run[1] + length, zero)
                continue
            if run is not None:
                yield run
            run = (start, length, zero)
        if run is not None:
            yield run

    def _is_zero(self, frame: int) -> bool:
        try:
            return self.memory.read(PhysAddr(frame & ~_MASK), PAGE_SIZE) == _ZERO
        except MissingMemory:
            return False

    def spans(self, address: VirtAddr, size: int) -> tuple[Span, ...]:
        """Say where the bytes stand in the evidence, merged where they are adjacent there.

        Raises:
            MissingMemory: some are not in it.
        """
        self._bounded(address, size)
        if (address & _MASK) + size <= PAGE_SIZE:
            return self.memory.spans(self.physical(address), size)
        found: list[Span] = []
        for start, length in _pieces(address, size):
            for span in self.memory.spans(self.physical(VirtAddr(start)), length):
                if found and found[-1].evidence == span.evidence and found[-1].end == span.start:
                    found[-1] = Span(span.evidence, found[-1].start, span.end)
                else:
                    found.append(span)
        return tuple(found)

    def u64(self, address: VirtAddr) -> int:
        """Read an unsigned 64-bit little-endian integer."""
        return int.from_bytes(self.read(address, 8), "little")

    def text(self, address: VirtAddr, limit: int) -> str:
        """Read a C string of at most `limit` bytes, latin-1 so that no byte is lost."""
        size = min(limit, PAGE_SIZE - (address & _MASK))
        data = self.read(address, size)
        if b"\0" not in data and size < limit:
            data += self.read(VirtAddr(address + size), limit - size)
        return data.partition(b"\0")[0].decode("latin-1")

    def _frame(self, page: int, *, zero_ok: bool) -> int:
        found = self._page(page)
        if found.zero and not zero_ok:
            why = "the page is all zero, which this format cannot tell from missing"
            raise MissingMemory(page, PAGE_SIZE, why, virtual=True)
        return found.frame

    def _page(self, page: int) -> _Page:
        found = self._pages.get(page)
        if found is None:
            frame = translate(self.memory, self.root, self.levels, VirtAddr(page)).address
            zero = self.memory.zero_is_missing and self.memory.read(frame, PAGE_SIZE) == _ZERO
            found = self._pages[page] = _Page(frame, zero)
        return found

    @staticmethod
    def _bounded(address: int, size: int) -> None:
        if not (0 < size <= _MAX_READ and address >= 0 and address + size <= _TOP):
            raise MissingMemory(address, size, "no such range", virtual=True)


def _parts(ranges: tuple[PhysRange, ...], start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Cut a physical range where memory begins and ends: half-open parts, and whether each is there."""
    index = max(0, bisect_right(ranges, start, key=lambda limits: limits.start) - 1)
    at = start
    for limits in itertools.islice(ranges, index, None):
        if limits.start >= end:
            break
        if limits.end <= at:
            continue
        if limits.start > at:
            yield at, limits.start, False
        at = min(end, limits.end)
        yield max(start, limits.start), at, True
    if at < end:
        yield at, end, False


def _pieces(address: int, size: int) -> "list[tuple[int, int]]":
    """Cut a range at page borders."""
    end = address + size
    cuts = [address, *range((address & ~_MASK) + PAGE_SIZE, end, PAGE_SIZE), end]
    return [(low, high - low) for low, high in itertools.pairwise(cuts)]
