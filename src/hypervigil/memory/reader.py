"""What every source of physical memory can do, whatever it is made of."""

from bisect import bisect_right
from typing import TYPE_CHECKING, Protocol

import msgspec

from hypervigil.core.errors import MissingMemory
from hypervigil.core.facts import Gap
from hypervigil.core.units import PhysAddr
from hypervigil.decode.cpustate import CpuState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypervigil.core.evidence import Span

OVERLAP = 1 << 25
"""Bytes by which runs of one range overlap where a source gives a range in pieces: no kernel's tables are longer."""


class PhysRange(msgspec.Struct, frozen=True, order=True):
    """Half-open range ``[start, end)`` of physical addresses."""

    start: PhysAddr
    end: PhysAddr

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.end - self.start


def require_present(ranges: tuple[PhysRange, ...], address: int, size: int) -> None:
    """Check that sorted ranges hold every byte from `address` on, before anything of that size is made.

    Raises:
        MissingMemory: with the first address that is not there, or for a negative size.
    """
    if size < 0:
        raise MissingMemory(address, size, "a negative size")
    at, end = address, address + size
    index = bisect_right(ranges, at, key=lambda limits: limits.start) - 1
    while at < end:
        if not (0 <= index < len(ranges) and ranges[index].start <= at < ranges[index].end):
            raise MissingMemory(at, end - at)
        at, index = ranges[index].end, index + 1


class Reader(Protocol):
    """Physical memory of one machine.

    Attributes:
        evidence: id of the evidence that `spans` speaks of.
        format: how the memory was written down: raw, lime, elf, recording, live.
        ranges: what is there, sorted and disjoint; ranges that are neighbours in memory but not in the source stay
            apart.
        zero_is_missing: whether a page of zeros cannot be told from one that was not written (true for raw images).
        registers: processors, where the source has them; else empty.
        vmcoreinfo: the VMCOREINFO text that the source carries beside the memory, None if it has none.
        gaps: memory that belongs to the source and is not in it.
    """

    evidence: str
    format: str
    ranges: tuple[PhysRange, ...]
    zero_is_missing: bool
    registers: tuple[CpuState, ...]
    vmcoreinfo: bytes | None
    gaps: tuple[Gap, ...]

    def read(self, address: PhysAddr, size: int) -> bytes:
        """Return exactly `size` bytes; never pads.

        Raises:
            MissingMemory: any of them is not there.
        """

    def view(self, address: PhysAddr, size: int) -> memoryview:
        """As `read`, without a copy where the source has the bytes in one piece of its own memory.

        Raises:
            MissingMemory: any of them is not there.
        """

    def each_run(self) -> "Iterator[tuple[PhysAddr, memoryview]]":
        """All memory for bulk scans, ascending, in as few pieces as can be.

        A mapped image gives each of its ranges whole. A source that must copy may cut a long range into runs that
        overlap by `OVERLAP` bytes, so that a scan may find a thing twice, and may use the memory of a run again for
        the next one: keep what was decoded, not the view.
        """

    def spans(self, address: PhysAddr, size: int) -> "tuple[Span, ...]":
        """Where in the evidence those bytes stand, in order of address; neighbours are merged.

        Raises:
            MissingMemory: any of them is not there.
        """


class LiveReader(Reader, Protocol):
    """Memory that changes while it is read."""

    def look_again(self) -> None:
        """Begin another look: memory and registers as they are now."""
