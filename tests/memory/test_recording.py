import contextlib
import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError, MissingMemory, ProgramError
from hypervigil.core.evidence import Span
from hypervigil.core.facts import Gap
from hypervigil.core.units import PhysAddr
from hypervigil.decode.cpustate import CpuState
from hypervigil.memory.reader import PhysRange, require_present
from hypervigil.memory.recording import RecordingReader, ReplayReader

PAGES = 16


class Changing:
    """A live source in which every read sees other bytes: the page's number and a count of all reads."""

    evidence = "live"
    format = "live"
    zero_is_missing = False
    registers: tuple[CpuState, ...] = (CpuState(cpu=0, source="test", cr3=0x1000),)
    vmcoreinfo: bytes | None = b"OSRELEASE=1\n"
    gaps: tuple[Gap, ...] = (Gap("a", "b"),)

    def __init__(self, *limits: tuple[int, int]) -> None:
        self.ranges = tuple(PhysRange(PhysAddr(start), PhysAddr(end)) for start, end in limits or [(0, PAGES * 4096)])
        self.reads: list[tuple[int, int]] = []

    def read(self, address: PhysAddr, size: int) -> bytes:
        require_present(self.ranges, address, size)
        self.reads.append((address, size))
        return b"".join(bytes([a >> 12 & 0xFF, len(self.reads)]) * 2048 for a in range(address, address + size, 4096))

    def view(self, address: PhysAddr, size: int) -> memoryview:
        return memoryview(self.read(address, size))

    def look_again(self) -> None:
        self.registers = (*self.registers, CpuState(cpu=len(self.registers), source="test"))

    def each_run(self) -> Iterator[tuple[PhysAddr, memoryview]]:
        for limits in self.ranges:
            yield limits.start, memoryview(self.read(limits.start, limits.size))

    def spans(self, address: PhysAddr, size: int) -> tuple[Span, ...]:
        return (Span(self.evidence, address, address + size),)


def _file(reader: RecordingReader, gaps: tuple[Gap, ...] | None = None) -> bytes:
    file = io.BytesIO()
    reader.write(file, gaps)
    return file.getvalue()


def test_what_was_seen_first_stays_and_pages_are_read_once() -> None:
    source = Changing()
    reader = RecordingReader(source)
    first = reader.read(PhysAddr(0x1100), 16)
    assert reader.read(PhysAddr(0x1100), 16) == first
    assert reader.read(PhysAddr(0x0FFE), 4) == b"\x00\x02\x01\x01"
    assert source.reads == [(0x1000, 4096), (0, 4096)]


def test_pages_around_known_ones_are_fetched_in_as_few_reads_as_can_be() -> None:
    source = Changing()
    reader = RecordingReader(source)
    reader.read(PhysAddr(0x3000), 1)
    reader.read(PhysAddr(0x1800), 0x5000)
    assert source.reads == [(0x3000, 4096), (0x1000, 8192), (0x4000, 0x3000)]


def test_a_replay_shows_the_runs_that_were_read() -> None:
    reader = RecordingReader(Changing())
    reader.read(PhysAddr(0x2000), 0x1000)
    reader.read(PhysAddr(0x1000), 1)
    reader.read(PhysAddr(0x5000), 0x2000)
    replay = ReplayReader(memoryview(_file(reader)))
    assert [(at, len(run)) for at, run in replay.each_run()] == [(0x1000, 0x2000), (0x5000, 0x2000)]


def test_what_was_read_at_once_is_one_span() -> None:
    reader = RecordingReader(Changing(), "recording")
    reader.read(PhysAddr(0x1000), 0x3000)
    assert len(reader.spans(PhysAddr(0x1800), 0x2000)) == 1
    reader.read(PhysAddr(0x4000), 1)
    assert len(reader.spans(PhysAddr(0x1800), 0x3000)) == 2


def test_spans_reopen_at_the_bytes_in_the_file() -> None:
    reader = RecordingReader(Changing(), "recording")
    reader.read(PhysAddr(0x5000), 4)
    spans = reader.spans(PhysAddr(0x4FFF), 4096 + 2)
    data = _file(reader)
    assert {span.evidence for span in spans} == {"recording"}
    assert b"".join(data[span.start : span.end] for span in spans) == reader.read(PhysAddr(0x4FFF), 4096 + 2)
    assert ReplayReader(memoryview(data), "recording").spans(PhysAddr(0x4FFF), 4096 + 2) == spans


def test_a_replay_gives_the_same_and_nothing_else() -> None:
    reader = RecordingReader(Changing())
    seen = reader.read(PhysAddr(0x2010), 0x2000)
    replay = ReplayReader(memoryview(_file(reader)))
    assert replay.read(PhysAddr(0x2010), 0x2000) == seen
    assert replay.view(PhysAddr(0x2010), 0x10) == seen[:0x10]
    assert (replay.ranges, replay.registers, replay.vmcoreinfo, replay.gaps, replay.zero_is_missing) == (
        reader.ranges,
        reader.registers,
        reader.vmcoreinfo,
        reader.gaps,
        reader.zero_is_missing,
    )
    assert [(int(start), len(run)) for start, run in replay.each_run()] == [(0x2000, 0x3000)]
    with pytest.raises(MissingMemory, match="not in the recording") as fault:
        replay.read(PhysAddr(0x4FFF), 2)
    assert fault.value.address == 0x5000


def test_each_look_comes_back_by_itself() -> None:
    live = RecordingReader(Changing())
    seen = [live.read(PhysAddr(0x2000), 8)]
    places = [live.spans(PhysAddr(0x2000), 8)]
    live.look_again()
    seen += [live.read(PhysAddr(0x2000), 8), live.read(PhysAddr(0x3000), 8)]
    places.append(live.spans(PhysAddr(0x2000), 8))
    assert live.read(PhysAddr(0x2000), 8) == seen[1] != seen[0]
    data = _file(live)
    assert [data[span.start : span.end] for (span,) in places] == seen[:2]
    replay = ReplayReader(memoryview(data))
    assert replay.read(PhysAddr(0x2000), 8) == seen[0]
    assert replay.spans(PhysAddr(0x2000), 8) == places[0]
    with pytest.raises(MissingMemory):
        replay.read(PhysAddr(0x3000), 8)
    assert len(replay.registers) == 1
    replay.look_again()
    assert [len(reader.registers) for reader in (live, replay)] == [2, 2]
    assert replay.spans(PhysAddr(0x2000), 8) == places[1]
    assert [replay.read(PhysAddr(0x2000), 8), replay.read(PhysAddr(0x3000), 8)] == seen[1:]
    assert [(int(start), len(run)) for start, run in replay.each_run()] == [(0x2000, 0x2000)]


def test_in_a_look_that_was_not_recorded_everything_is_missing() -> None:
    live = RecordingReader(Changing())
    live.read(PhysAddr(0x2000), 8)
    replay = ReplayReader(memoryview(_file(live)))
    replay.look_again()
    assert replay.registers == ()
    assert list(replay.each_run()) == []
    for ask in (replay.read, replay.view, replay.spans):
        with pytest.raises(MissingMemory, match="not in the recording"):
            ask(PhysAddr(0x2000), 8)


def test_the_same_reads_give_the_same_file() -> None:
    files = []
    for _ in range(2):
        reader = RecordingReader(Changing())
        reader.read(PhysAddr(0x7000), 5)
        reader.look_again()
        reader.read(PhysAddr(0x7000), 5)
        files.append(_file(reader))
    assert files[0] == files[1]


def test_gaps_known_at_the_end_are_written() -> None:
    gaps = (Gap("run state", "paused"),)
    assert ReplayReader(memoryview(_file(RecordingReader(Changing()), gaps))).gaps == gaps


def test_bulk_scans_pass_through_unrecorded() -> None:
    reader = RecordingReader(Changing((0, 4096)))
    assert [len(run) for _, run in reader.each_run()] == [4096]
    assert list(ReplayReader(memoryview(_file(reader))).each_run()) == []


@pytest.mark.parametrize(("address", "size"), [(0x3FFF, 2), (0x9000, 1), (0, 1 << 60), (0, -1)])
def test_missing_memory_is_missing_and_costs_nothing(address: int, size: int) -> None:
    source = Changing((0, 0x4000), (0x8000, 0x9000))
    reader = RecordingReader(source)
    for ask in (reader.read, reader.view, reader.spans):
        with pytest.raises(MissingMemory):
            ask(PhysAddr(address), size)
    assert source.reads == []


def test_nothing_is_read_for_no_bytes() -> None:
    source = Changing()
    reader = RecordingReader(source)
    assert (reader.read(PhysAddr(8), 0), reader.spans(PhysAddr(8), 0)) == (b"", ())
    assert source.reads == []


def test_partial_pages_are_refused() -> None:
    with pytest.raises(ProgramError):
        RecordingReader(Changing((0, 100)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: b"X" + data[1:], "not a recording"),
        (lambda data: data[:8] + b"\2" + data[9:], "version 2"),
        (lambda data: data[:-1], "cut off"),
        (lambda data: data[:16], "cut off"),
        (lambda data: data[:16] + b"JUNK" + data[20:], "JUNK"),
        (lambda data: data[:-1] + b"!", "description"),
    ],
)
def test_a_damaged_recording_is_refused(change: type, reason: str) -> None:
    reader = RecordingReader(Changing())
    reader.read(PhysAddr(0), 8)
    with pytest.raises(DecodeError, match=reason):
        ReplayReader(memoryview(change(_file(reader))))


@given(st.lists(st.tuples(st.integers(0, PAGES * 4096), st.integers(0, 9000), st.booleans()), max_size=12))
def test_any_sequence_of_reads_and_looks_replays_alike(asked: list[tuple[int, int, bool]]) -> None:
    def run(reader: RecordingReader | ReplayReader) -> list[bytes | int]:
        seen: list[bytes | int] = []
        for address, size, look in asked:
            if look:
                reader.look_again()
            try:
                seen.append(reader.read(PhysAddr(address), size))
            except MissingMemory as fault:
                seen.append(fault.address)
        return seen

    live = RecordingReader(Changing())
    assert [value for value in run(live) if isinstance(value, bytes)] == [
        value for value in run(ReplayReader(memoryview(_file(live)))) if isinstance(value, bytes)
    ]


@given(st.integers(0, 4200), st.integers(0, 255), st.integers(0, 6000))
def test_damaged_recordings_give_bytes_or_a_reason(place: int, value: int, cut: int) -> None:
    reader = RecordingReader(Changing())
    reader.read(PhysAddr(0x3000), 1)
    data = bytearray(_file(reader))
    data[place] = value
    with contextlib.suppress(DecodeError):
        replay = ReplayReader(memoryview(bytes(data[:cut])))
        assert all(len(run) % 4096 == 0 for _, run in replay.each_run())
