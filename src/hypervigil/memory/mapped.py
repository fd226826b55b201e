"""Memory images as one mapping of a file: reads are slices, views are free.

The mapping is private to reading, but it is the file: whoever cuts the file short while it is examined ends the
process with SIGBUS. Copy an image that others may still write to.
"""

import mmap
import os
import stat
from bisect import bisect_right
from typing import TYPE_CHECKING

import msgspec

from hypervigil.core.errors import MissingMemory, UsageError
from hypervigil.core.evidence import Span
from hypervigil.core.facts import Gap
from hypervigil.core.units import PhysAddr
from hypervigil.memory.reader import PhysRange

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hypervigil.decode.cpustate import CpuState

MAX_COMPARED = 1 << 28
"""Bytes of overlapping segments that are compared; beyond it an overlap counts as a contradiction."""


class Piece(msgspec.Struct, frozen=True, order=True):
    """Physical addresses from `start` to `end` (exclusive) stand in the file from byte `offset` on."""

    start: int
    end: int
    offset: int


def map_descriptor(descriptor: int) -> memoryview:
    """Map a whole file or block device for reading.

    Args:
        descriptor: an open file descriptor; it may be closed afterwards.

    Raises:
        UsageError: not a regular file or block device, or it cannot be mapped.
    """
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise UsageError("a memory image must be a file or a block device; save the stream to a file first")
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if not size:
        return memoryview(b"")
    try:
        return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as fault:
        raise UsageError(f"the image cannot be mapped: {fault}") from fault


class MappedMemory:
    """A `Reader` over pieces of one buffer.

    Args:
        buffer: the whole evidence.
        pieces: what of memory stands where; any order. Parts beyond the end of the buffer are cut and become gaps.
            Where pieces overlap, the one that begins first is taken; if the other holds different bytes, that is a gap.
        evidence: id for spans.
        format_name: see `Reader.format`.
        zero_is_missing: see `Reader`.
        registers: see `Reader`.
        vmcoreinfo: see `Reader`.
        gaps: what the format itself told of missing memory.
    """

    def __init__(
        self,
        buffer: memoryview,
        pieces: "Iterable[Piece]",
        *,
        evidence: str,
        format_name: str,
        zero_is_missing: bool,
        registers: "tuple[CpuState, ...]" = (),
        vmcoreinfo: bytes | None = None,
        gaps: tuple[Gap, ...] = (),
    ) -> None:
        cut = [*gaps]
        self._buffer = buffer
        self._pieces = _merged(_disjoint(buffer, _inside(buffer, pieces, cut), cut))
        self._starts = [piece.start for piece in self._pieces]
        self.evidence = evidence
        self.format = format_name
        self.ranges = tuple(PhysRange(PhysAddr(piece.start), PhysAddr(piece.end)) for piece in self._pieces)
        self.zero_is_missing = zero_is_missing
        self.registers = registers
        self.vmcoreinfo = vmcoreinfo
        self.gaps = tuple(cut)

    def read(self, address: PhysAddr, size: int) -> bytes:
        """See `Reader.read`."""
        return bytes(self.view(address, size))

    def view(self, address: PhysAddr, size: int) -> memoryview:
        """See `Reader.view`; a copy only where the bytes stand in several places of the file."""
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and size >= 0:
            piece = self._pieces[index]
            if address + size <= piece.end:
                at = piece.offset + address - piece.start
                return self._buffer[at : at + size]
        parts = list(self._each_part(address, size))
        return memoryview(b"".join(self._buffer[start:end] for start, end in parts))

    def each_run(self) -> "Iterator[tuple[PhysAddr, memoryview]]":
        """See `Reader.each_run`; every range whole and without a copy."""
        for piece in self._pieces:
            end = piece.offset + piece.end - piece.start
            yield PhysAddr(piece.start), self._buffer[piece.offset : end]

    def spans(self, address: PhysAddr, size: int) -> tuple[Span, ...]:
        """See `Reader.spans`."""
        return tuple(Span(self.evidence, start, end) for start, end in self._each_part(address, size))

    def _each_part(self, address: int, size: int) -> "Iterator[tuple[int, int]]":
        """Half-open ranges of the buffer that hold those bytes, in order of address."""
        if size < 0:
            raise MissingMemory(address, size, "a negative size")
        end = address + size
        index = bisect_right(self._starts, address) - 1
        parts = []
        at = address
        while at < end:
            piece = self._pieces[index] if 0 <= index < len(self._pieces) else None
            if piece is None or not piece.start <= at < piece.end:
                raise MissingMemory(at, end - at)
            start = piece.offset + at - piece.start
            length = min(end, piece.end) - at
            parts.append((start, start + length))
            at, index = at + length, index + 1
        yield from parts


def _inside(buffer: memoryview, pieces: "Iterable[Piece]", gaps: list[Gap]) -> "Iterator[Piece]":
    """The pieces, cut where the buffer ends."""
    for piece in pieces:
        there = max(0, min(piece.end - piece.start, len(buffer) - piece.offset))
        end = piece.start + there
        if end < piece.end:
            gaps.append(Gap(f"physical {end:#x} to {piece.end:#x}", "the file ends before it: truncated"))
        if there > 0:
            yield Piece(piece.start, end, piece.offset)


def _disjoint(buffer: memoryview, pieces: "Iterable[Piece]", gaps: list[Gap]) -> "Iterator[Piece]":
    """The pieces by address, without what an earlier one already holds."""
    budget = MAX_COMPARED
    last: Piece | None = None
    for piece in sorted(pieces):
        if last is None or piece.start >= last.end:
            yield piece
            last = piece
            continue
        end = min(piece.end, last.end)
        budget -= end - piece.start
        if not _same(buffer, last, piece, end, budget):
            gaps.append(
                Gap(f"physical {piece.start:#x} to {end:#x}", "two segments hold it and differ; the first is taken")
            )
        if piece.end > last.end:
            last = Piece(last.end, piece.end, piece.offset + last.end - piece.start)
            yield last


def _same(buffer: memoryview, one: Piece, other: Piece, end: int, budget: int) -> bool:
    """Whether two overlapping pieces hold the same bytes from the start of `other` to `end`."""
    first = one.offset + other.start - one.start
    size = end - other.start
    if first == other.offset:
        return True
    return budget >= 0 and buffer[first : first + size] == buffer[other.offset : other.offset + size]


def _merged(pieces: "Iterable[Piece]") -> tuple[Piece, ...]:
    """Join neighbours that are neighbours in the buffer too."""
    merged: list[Piece] = []
    for piece in pieces:
        before = merged[-1] if merged else None
        if before and before.end == piece.start and before.offset + before.end - before.start == piece.offset:
            merged[-1] = Piece(before.start, piece.end, before.offset)
        else:
            merged.append(piece)
    return tuple(merged)
