"""Physical memory with page tables, as small as a test needs it and easy to damage."""

import struct
from typing import Self

from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.memory.open import read_image
from hypervigil.memory.reader import Reader
from hypervigil.memory.space import AddressSpace
from tests.decode.test_lime import lime

PRESENT, WRITABLE, USER, LARGE, NO_EXECUTE = 1, 2, 4, 0x80, 1 << 63
FRAME = 0x000F_FFFF_FFFF_F000
LEVEL_OF = {1 << 12: 1, 1 << 21: 2, 1 << 30: 3}
"""The level at which a page of some size is mapped."""


class Image:
    """Memory from physical address 0 on, and the tables at `root`.

    Frames are handed out from below, tables among them, so that tables and data are mixed as in a real machine.
    """

    def __init__(self, size: int = 1 << 20, levels: int = 4, root: int = PAGE_SIZE) -> None:
        self.data = bytearray(size)
        self.levels = levels
        self.root = PhysAddr(root)
        self._next = root + PAGE_SIZE

    def copy(self) -> Self:
        """Another one with the same content."""
        other = type(self)(0, self.levels, self.root)
        other.data = bytearray(self.data)
        other._next = self._next
        return other

    def frame(self, count: int = 1) -> int:
        """Take fresh frames, one after another; return the first one's address."""
        taken = self._next
        self._next += count * PAGE_SIZE
        assert self._next <= len(self.data), "the image is too small"
        return taken

    def page(self, address: int, content: bytes = b"", *, writable: bool = True, executable: bool = False) -> int:
        """Map fresh frames at `address`, enough for `content`, and fill them; return the first one."""
        count = max(1, -(-len(content) // PAGE_SIZE))
        frame = self.frame(count)
        for index in range(0, count * PAGE_SIZE, PAGE_SIZE):
            self.map(address + index, frame + index, writable=writable, executable=executable)
        self.data[frame : frame + len(content)] = content
        return frame

    def map(
        self,
        address: int,
        frame: int,
        *,
        size: int = PAGE_SIZE,
        writable: bool = True,
        executable: bool = False,
        user: bool = False,
    ) -> None:
        """Map one page of 4 KiB, 2 MiB or 1 GiB."""
        level = LEVEL_OF[size]
        value = frame | PRESENT | WRITABLE * writable | USER * user | NO_EXECUTE * (not executable)
        self.put(self.slot(address, level), value | (LARGE if level > 1 else 0))

    def slot(self, address: int, level: int = 1) -> int:
        """Physical address of the entry for `address` at a level; missing tables above it are made."""
        table = int(self.root)
        for at in range(self.levels, level, -1):
            place = table + self._offset(address, at)
            if not self.get(place):
                self.put(place, self.frame() | PRESENT | WRITABLE | USER)
            table = self.get(place) & FRAME
        return table + self._offset(address, level)

    @staticmethod
    def _offset(address: int, level: int) -> int:
        return 8 * (address >> (12 + 9 * (level - 1)) & 0x1FF)

    def get(self, physical: int) -> int:
        """The 64-bit number at a physical address."""
        value: int = struct.unpack_from("<Q", self.data, physical)[0]
        return value

    def put(self, physical: int, value: int) -> None:
        """Write a 64-bit number at a physical address."""
        struct.pack_into("<Q", self.data, physical, value & (1 << 64) - 1)

    def physical(self, address: int) -> int:
        """Where a virtual address is, by a walk that has nothing in common with the one under test."""
        for level in range(self.levels, 0, -1):
            entry = self.get(self.slot(address, level))
            assert entry & PRESENT, f"{address:#x} is not mapped"
            if level == 1 or entry & LARGE:
                inside = (PAGE_SIZE << 9 * (level - 1)) - 1
                return (entry & FRAME & ~inside) | address & inside
        raise AssertionError

    def poke(self, address: int, content: bytes) -> None:
        """Write at a virtual address, across pages if need be."""
        for index, byte in enumerate(content):
            self.data[self.physical(address + index)] = byte

    def peek(self, address: int, size: int) -> bytes:
        """Read at a virtual address."""
        return bytes(self.data[self.physical(address + index)] for index in range(size))

    def wipe(self, address: int, size: int = PAGE_SIZE) -> None:
        """Zero what is at a virtual address."""
        self.poke(address, bytes(size))

    def raw(self) -> Reader:
        """As a raw image, where a page of zeros may be missing."""
        return read_image(memoryview(bytes(self.data)))

    def lime(self, *missing: int) -> Reader:
        """As a LiME image, where zeros are zeros, without the frames at the physical addresses `missing`."""
        ranges: list[tuple[int, bytes]] = []
        start = 0
        for frame in (*sorted(missing), len(self.data)):
            if frame > start:
                ranges.append((start, bytes(self.data[start:frame])))
            start = frame + PAGE_SIZE
        return read_image(memoryview(lime(*ranges)))

    def space(self, memory: Reader | None = None) -> AddressSpace:
        """Its virtual memory, from a raw image unless another one is given."""
        return AddressSpace(memory or self.raw(), self.root, self.levels)


def virtual(*indices: int) -> VirtAddr:
    """The canonical address of the page with these indices, top level first."""
    address = 0
    for index in indices:
        address = address << 9 | index
    address <<= 12
    bits = 12 + 9 * len(indices)
    high = (1 << 64) - (1 << bits) if indices[0] & 0x100 else 0
    return VirtAddr(address | high)
