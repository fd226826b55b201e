"""The memory of an emulated host, seen and changed from outside.

The machine's RAM is a file that QEMU and this process share. Virtual addresses are translated here by a page walk of
the range's own (Intel SDM volume 3, 4.5 "4-level paging and 5-level paging"), independent of the product's reader.
"""

import mmap
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from hypervigil.core.errors import MissingMemory, UsageError
from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.lab.gdbstub import GdbStub

_FRAME = 0x000F_FFFF_FFFF_F000
_PRESENT = 1
_LARGE = 1 << 7
_INDEX = 0x1FF

NX = 1 << 63
WRITABLE = 1 << 1


class GuestMemory:
    """Reads and writes guest memory by physical and, once `root` is set, by kernel virtual address.

    Attributes:
        root: the physical address of the kernel's top page table.
        levels: 4 or 5.
        size: bytes of RAM, one range from physical address 0.
    """

    def __init__(self, ram: Path, gdb: Path) -> None:
        self._gdb = gdb
        self.root: PhysAddr | None = None
        self.levels = 4
        with ram.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
        self.size = len(self._map)

    def close(self) -> None:
        """Lets go of the shared file."""
        self._map.close()

    def physical(self, address: PhysAddr, length: int) -> bytes:
        """The bytes at physical [address, address + length)."""
        if length < 0 or address < 0 or address + length > self.size:
            raise MissingMemory(address, length, "outside the machine's RAM")
        return self._map[address : address + length]

    def page(self, address: int) -> bytes:
        """The page of RAM that begins at a physical address."""
        return self._map[address : address + PAGE_SIZE]

    def each_match(self, pattern: bytes, *, step: int = 8) -> Iterator[PhysAddr]:
        """Physical addresses, divisible by `step`, that hold `pattern`."""
        at = self._map.find(pattern)
        while at >= 0:
            if at % step == 0:
                yield PhysAddr(at)
            at = self._map.find(pattern, at + 1)

    def entry(self, address: VirtAddr) -> tuple[PhysAddr, int, int]:
        """The leaf that maps a virtual address: (address of the entry, its value, size of the page in bytes).

        Raises:
            MissingMemory: nothing is mapped there.
        """
        where, value, size = self._step(address)
        if not value & _PRESENT:
            raise MissingMemory(address, 8, "not mapped", virtual=True)
        return where, value, size

    def each_leaf(self, start: VirtAddr, end: VirtAddr) -> Iterator[tuple[VirtAddr, int, int]]:
        """The mapped pages of kernel-virtual [start, end): (address, entry, size in bytes)."""
        at = int(start)
        while at < end:
            _, value, size = self._step(at)
            if value & _PRESENT:
                yield VirtAddr(at & ~(size - 1)), value, size
            at = (at & ~(size - 1)) + size

    def _step(self, address: int) -> tuple[PhysAddr, int, int]:
        """The last entry of the walk to an address, present or not, and the bytes that it spans."""
        if self.root is None:
            raise MissingMemory(address, 8, "the page tables are not known yet", virtual=True)
        table = self.root
        for level in range(self.levels - 1, -1, -1):
            shift = 12 + 9 * level
            where = PhysAddr(table + 8 * ((address >> shift) & _INDEX))
            (value,) = struct.unpack("<Q", self.physical(where, 8))
            if level == 0 or not value & _PRESENT or (value & _LARGE and level < 3):  # noqa: PLR2004 - 1 GiB pages are the largest
                return where, value, 1 << shift
            table = PhysAddr(value & _FRAME)
        raise AssertionError

    def translate(self, address: VirtAddr) -> PhysAddr:
        """The physical address behind a kernel virtual one.

        Raises:
            MissingMemory: nothing is mapped there.
        """
        _, value, size = self.entry(address)
        return PhysAddr((value & _FRAME & ~(size - 1)) + (address & (size - 1)))

    def read(self, address: VirtAddr, length: int) -> bytes:
        """The bytes at virtual [address, address + length)."""
        return b"".join(self.physical(self.translate(at), size) for at, size in _pages(address, length))

    def pointer(self, address: VirtAddr) -> VirtAddr:
        """The 64-bit value at a virtual address."""
        (value,) = struct.unpack("<Q", self.read(address, 8))
        return VirtAddr(value)

    def write(self, address: VirtAddr, data: bytes) -> None:
        """Puts `data` at virtual [address, address + len(data)), whatever the page's protection says."""
        self.write_all([(address, self.read(address, len(data)), data)])

    def write_all(self, writes: Sequence[tuple[VirtAddr, bytes, bytes]]) -> None:
        """Does several writes (address, bytes that are there now, bytes to put) while the machine stands still once.

        Raises:
            UsageError: other bytes are there than were said; then nothing is written.
        """
        with GdbStub(self._gdb) as stub:
            for address, before, _ in writes:
                if self.read(address, len(before)) != before:
                    raise UsageError(f"the bytes at {address:#x} have changed meanwhile")
            for address, _, data in writes:
                for at, size in _pages(address, len(data)):
                    stub.write(self.translate(at), data[at - address : at - address + size])

    def write_physical(self, address: PhysAddr, data: bytes) -> None:
        """Puts `data` at physical [address, address + len(data))."""
        with GdbStub(self._gdb) as stub:
            stub.write(address, data)


def _pages(address: VirtAddr, length: int) -> Iterator[tuple[VirtAddr, int]]:
    end = address + length
    at = int(address)
    while at < end:
        size = min(end, (at // PAGE_SIZE + 1) * PAGE_SIZE) - at
        yield VirtAddr(at), size
        at += size
