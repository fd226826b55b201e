"""The kernel's virtual address space: reading by virtual address, and where the bytes stand in the evidence.

In a raw image an all-zero page cannot be told from a missing one. No page that the kernel keeps live data in is
zero from end to end, so here such a page is missing memory, unless the caller says that zero is fine.
"""

import itertools
from typing import NamedTuple

from hypervigil.core.errors import MissingMemory
from hypervigil.core.evidence import Span
from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.memory.pagetable import translate
from hypervigil.memory.reader import Reader

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
        """Read page by page, with None where a page is missing or cannot be told from missing."""
        self._bounded(address, size)
        found: list[tuple[VirtAddr, int, bytes | None]] = []
        for start, length in _pieces(address, size):
            try:
                found.append((VirtAddr(start), length, self.read(VirtAddr(start), length)))
            except MissingMemory:
                found.append((VirtAddr(start), length, None))
        return found

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


def _pieces(address: int, size: int) -> "list[tuple[int, int]]":
    """Cut a range at page borders."""
    end = address + size
    cuts = [address, *range((address & ~_MASK) + PAGE_SIZE, end, PAGE_SIZE), end]
    return [(low, high - low) for low, high in itertools.pairwise(cuts)]
