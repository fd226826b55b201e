"""The recording of a live source: every page that was read, as it was seen first in each look.

The recording is the evidence. `RecordingReader` stands between a live source and its readers and keeps what they saw;
`ReplayReader` gives the same bytes again from the file that it wrote, and nothing else. Bulk scans (`each_run`) pass
through unrecorded: whatever a scan finds must be read, or a replay will not find it. A look ends with `look_again`:
from then on every page is read anew.

The file: 16 bytes (``HVRECORD``, version, 0), then records of a 24-byte head (``PAGE``, number of the look from 0 on,
physical address, size) and their bytes in the order in which they were first seen, and one last record (``META``)
whose bytes are JSON: ranges, registers and gaps of the source. Numbers are little-endian. The same reads of the same
memory give the same file, and an offset in it is known when a page is recorded, so that findings can cite it at once.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import IO

import msgspec

from hypervigil.core.errors import DecodeError, MissingMemory, ProgramError
from hypervigil.core.evidence import Span
from hypervigil.core.facts import Gap
from hypervigil.core.units import PAGE_SIZE, PhysAddr
from hypervigil.decode.cpustate import CpuState
from hypervigil.memory.reader import LiveReader, PhysRange, require_present

MAX_RECORDS = 1 << 22
"""Records of one file that are read."""

_MAGIC = b"HVRECORD"
_FILE = struct.Struct("<8sII")
_RECORD = struct.Struct("<4sIQQ")
_VERSION = 1
_PAGE, _META = b"PAGE", b"META"
_MAX_META = 1 << 24


class _Meta(msgspec.Struct, frozen=True):
    ranges: tuple[PhysRange, ...]
    zero_is_missing: bool
    registers: tuple[tuple[CpuState, ...], ...]
    vmcoreinfo: bytes | None
    gaps: tuple[Gap, ...]


class _Pages:
    """Where each page of one look stands in a recording: its file offset."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}

    def add(self, address: int, size: int, offset: int) -> None:
        """Note that whole pages from `address` on stand in the file from `offset` on; the first note counts."""
        for inside in range(0, size, PAGE_SIZE):
            self._places.setdefault(address + inside, offset + inside)

    def __contains__(self, page: int) -> bool:
        return page in self._places

    def each_part(self, address: int, size: int) -> Iterator[tuple[int, int]]:
        """Half-open file ranges of those bytes, joined.

        Raises:
            MissingMemory: a page that was never recorded.
        """
        if size < 0:
            raise MissingMemory(address, size, "a negative size")
        at, end = address, address + size
        start = stop = -1
        while at < end:
            page = self._places.get(at & -PAGE_SIZE)
            if page is None:
                raise MissingMemory(at, end - at, "not in the recording")
            place = page + at % PAGE_SIZE
            length = min(end - at, PAGE_SIZE - at % PAGE_SIZE)
            if place != stop:
                if stop > start:
                    yield start, stop
                start = place
            stop = place + length
            at += length
        if stop > start:
            yield start, stop

    def each_run(self) -> Iterator[tuple[int, int]]:
        """Half-open physical ranges of recorded pages, ascending."""
        start = end = -1
        for page in sorted(self._places):
            if page != end:
                if end > start:
                    yield start, end
                start = page
            end = page + PAGE_SIZE
        if end > start:
            yield start, end


class RecordingReader:
    """A `LiveReader` that keeps what was read of another one; reads give what was seen first in this look.

    Args:
        inner: the live source.
        evidence: id that spans will carry.

    Raises:
        ProgramError: a source whose ranges do not consist of whole pages.
    """

    def __init__(self, inner: LiveReader, evidence: str = "memory") -> None:
        if any(limits.start % PAGE_SIZE or limits.end % PAGE_SIZE for limits in inner.ranges):
            raise ProgramError("only memory of whole pages is recorded")
        self._inner = inner
        self._pages = _Pages()
        self._registers = [inner.registers]
        self._records: list[tuple[int, int, int, bytes]] = []
        self._ends: list[int] = []
        self._end = _FILE.size
        self.evidence = evidence
        self.format = "recording"
        self.ranges = inner.ranges
        self.zero_is_missing = inner.zero_is_missing
        self.registers = inner.registers
        self.vmcoreinfo = inner.vmcoreinfo
        self.gaps = inner.gaps

    def read(self, address: PhysAddr, size: int) -> bytes:
        """See `Reader.read`; as those bytes were when they were first seen in this look."""
        self._ensure(address, size)
        return b"".join(self._piece(start, end) for start, end in self._pages.each_part(address, size))

    def view(self, address: PhysAddr, size: int) -> memoryview:
        """See `Reader.view`; a copy."""
        return memoryview(self.read(address, size))

    def look_again(self) -> None:
        """Begin another look: from now on every page is read and recorded anew."""
        self._inner.look_again()
        self.registers = self._inner.registers
        self._registers.append(self.registers)
        self._pages = _Pages()

    def each_run(self) -> Iterator[tuple[PhysAddr, memoryview]]:
        """See `Reader.each_run`; not recorded."""
        yield from self._inner.each_run()

    def spans(self, address: PhysAddr, size: int) -> tuple[Span, ...]:
        """See `Reader.spans`; offsets in the file that `write` will make."""
        self._ensure(address, size)
        return tuple(Span(self.evidence, start, end) for start, end in self._pages.each_part(address, size))

    def write(self, file: IO[bytes], gaps: tuple[Gap, ...] | None = None) -> None:
        """Write the recording.

        Args:
            file: where to.
            gaps: what a replay shall give as its gaps, where more is known at the end than at the beginning.
        """
        meta = _Meta(
            self.ranges,
            self.zero_is_missing,
            tuple(self._registers),
            self.vmcoreinfo,
            self.gaps if gaps is None else gaps,
        )
        file.write(_FILE.pack(_MAGIC, _VERSION, 0))
        for look, address, _, content in self._records:
            file.write(_RECORD.pack(_PAGE, look, address, len(content)))
            file.write(content)
        encoded = msgspec.json.encode(meta)
        file.write(_RECORD.pack(_META, 0, 0, len(encoded)))
        file.write(encoded)

    def _ensure(self, address: int, size: int) -> None:
        """Read and record the pages of a range that were not seen yet, neighbours in one go."""
        require_present(self.ranges, address, size)
        start = -1
        pages = _pages_of(address, size)
        for page in pages:
            if page in self._pages:
                self._fetch(start, page)
                start = -1
            elif start < 0:
                start = page
        self._fetch(start, pages.stop)

    def _fetch(self, start: int, end: int) -> None:
        if not 0 <= start < end:
            return
        content = self._inner.read(PhysAddr(start), end - start)
        offset = self._end + _RECORD.size
        self._records.append((len(self._registers) - 1, start, offset, content))
        self._end = offset + len(content)
        self._ends.append(self._end)
        self._pages.add(start, len(content), offset)

    def _piece(self, start: int, end: int) -> bytes:
        """Bytes of the coming file, from one record."""
        index = bisect_right(self._ends, start)
        _, _, offset, content = self._records[index]
        return content[start - offset : end - offset]


class ReplayReader:
    """A `LiveReader` over a recording, look by look.

    Args:
        buffer: the whole file.
        evidence: id that spans will carry.

    Raises:
        DecodeError: not a recording, one of another version, or one that was cut off.
    """

    def __init__(self, buffer: memoryview, evidence: str = "memory") -> None:
        self._buffer = buffer
        self._looks: dict[int, _Pages] = {}
        self._look = 0
        meta = self._load()
        self.evidence = evidence
        self.format = "recording"
        self.ranges = meta.ranges
        self.zero_is_missing = meta.zero_is_missing
        self._registers = meta.registers
        self.registers = self._registers[0] if self._registers else ()
        self.vmcoreinfo = meta.vmcoreinfo
        self.gaps = meta.gaps

    def read(self, address: PhysAddr, size: int) -> bytes:
        """See `Reader.read`; bytes that nobody looked at are missing."""
        return bytes(self.view(address, size))

    def view(self, address: PhysAddr, size: int) -> memoryview:
        """See `Reader.view`."""
        parts = [self._buffer[start:end] for start, end in self._pages.each_part(address, size)]
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))

    def look_again(self) -> None:
        """Go on to the next look; where there is none, everything is missing."""
        self._look += 1
        self.registers = self._registers[self._look] if self._look < len(self._registers) else ()

    def each_run(self) -> Iterator[tuple[PhysAddr, memoryview]]:
        """See `Reader.each_run`; what was recorded in this look."""
        for start, end in self._pages.each_run():
            yield PhysAddr(start), self.view(PhysAddr(start), end - start)

    def spans(self, address: PhysAddr, size: int) -> tuple[Span, ...]:
        """See `Reader.spans`."""
        return tuple(Span(self.evidence, start, end) for start, end in self._pages.each_part(address, size))

    @property
    def _pages(self) -> _Pages:
        return self._looks.get(self._look) or _Pages()

    def _load(self) -> _Meta:
        if len(self._buffer) < _FILE.size or bytes(self._buffer[: len(_MAGIC)]) != _MAGIC:
            raise DecodeError("recording", "not a recording", 0)
        _, version, _ = _FILE.unpack_from(self._buffer)
        if version != _VERSION:
            raise DecodeError("recording", f"version {version} is not known", len(_MAGIC))
        at = _FILE.size
        for _ in range(MAX_RECORDS):
            if at + _RECORD.size > len(self._buffer):
                break
            tag, look, address, size = _RECORD.unpack_from(self._buffer, at)
            at += _RECORD.size
            if size > len(self._buffer) - at:
                break
            if tag == _META:
                return self._meta(at, size)
            if tag != _PAGE or not size or address % PAGE_SIZE or size % PAGE_SIZE:
                raise DecodeError("recording", f"a record {tag!r} of {size} bytes for {address:#x}", at)
            self._looks.setdefault(look, _Pages()).add(address, size, at)
            at += size
        raise DecodeError("recording", "cut off before its end", at)

    def _meta(self, at: int, size: int) -> _Meta:
        try:
            return msgspec.json.decode(self._buffer[at : at + min(size, _MAX_META)], type=_Meta)
        except (msgspec.DecodeError, RecursionError, ValueError) as fault:
            raise DecodeError("recording", f"its description: {fault}", at) from fault


def _pages_of(address: int, size: int) -> range:
    """Addresses of the pages that a range touches."""
    start = address & -PAGE_SIZE
    return range(start, -(-(address + size) // PAGE_SIZE) * PAGE_SIZE if size > 0 else start, PAGE_SIZE)
