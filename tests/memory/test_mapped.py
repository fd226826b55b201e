import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import MissingMemory, UsageError
from hypervigil.core.evidence import Span
from hypervigil.core.units import PhysAddr
from hypervigil.memory.mapped import MappedMemory, Piece, map_descriptor
from hypervigil.memory.reader import PhysRange, Reader

DATA = bytes(range(256)) * 4


def _memory(*pieces: tuple[int, int, int], data: bytes = DATA) -> MappedMemory:
    return MappedMemory(
        memoryview(data), [Piece(*piece) for piece in pieces], evidence="dump", format_name="raw", zero_is_missing=False
    )


def _ranges(memory: Reader) -> list[tuple[int, int]]:
    return [(limits.start, limits.end) for limits in memory.ranges]


def test_reads_views_and_spans_of_one_piece() -> None:
    memory = _memory((0x1000, 0x1100, 16))
    assert memory.read(PhysAddr(0x1010), 4) == DATA[32:36]
    assert memory.view(PhysAddr(0x1000), 0x100) == DATA[16:272]
    assert memory.spans(PhysAddr(0x1010), 4) == (Span("dump", 32, 36),)
    assert memory.read(PhysAddr(0x1100), 0) == b""
    assert memory.ranges == (PhysRange(PhysAddr(0x1000), PhysAddr(0x1100)),)


def test_a_view_of_one_piece_is_the_evidence_itself() -> None:
    data = bytearray(DATA)
    memory = MappedMemory(memoryview(data), [Piece(0, 64, 0)], evidence="dump", format_name="raw", zero_is_missing=True)
    view = memory.view(PhysAddr(0), 8)
    data[0] = 0x77
    assert view[0] == 0x77


def test_neighbours_in_memory_are_read_across_and_stay_apart_in_the_evidence() -> None:
    memory = _memory((0x1000, 0x1010, 512), (0x1010, 0x1020, 0))
    assert memory.read(PhysAddr(0x100C), 8) == DATA[524:528] + DATA[0:4]
    assert memory.view(PhysAddr(0x100C), 8) == DATA[524:528] + DATA[0:4]
    assert memory.spans(PhysAddr(0x100C), 8) == (Span("dump", 524, 528), Span("dump", 0, 4))
    assert [(int(start), bytes(run)) for start, run in memory.each_run()] == [
        (0x1000, DATA[512:528]),
        (0x1010, DATA[0:16]),
    ]


def test_neighbours_in_both_are_one_range() -> None:
    assert _ranges(_memory((0x1010, 0x1020, 16), (0x1000, 0x1010, 0))) == [(0x1000, 0x1020)]


@pytest.mark.parametrize(
    ("address", "size", "first"),
    [(0xFFF, 2, 0xFFF), (0x1000, 17, 0x1010), (0x100F, 0x40, 0x1010), (0x5000, 1, 0x5000), (0x1000, -1, 0x1000)],
)
def test_a_missing_byte_is_named_and_never_padded(address: int, size: int, first: int) -> None:
    memory = _memory((0x1000, 0x1010, 0), (0x1020, 0x1030, 64))
    for ask in (memory.read, memory.view, memory.spans):
        with pytest.raises(MissingMemory) as fault:
            ask(PhysAddr(address), size)
        assert fault.value.address == first


def test_an_absurd_size_fails_before_anything_is_made() -> None:
    with pytest.raises(MissingMemory):
        _memory((0, 16, 0)).read(PhysAddr(0), 1 << 60)


def test_a_piece_beyond_the_end_is_cut_and_told() -> None:
    memory = _memory((0, 64, len(DATA) - 16), (0x1000, 0x1010, len(DATA) + 5))
    assert _ranges(memory) == [(0, 16)]
    assert [str(gap) for gap in memory.gaps] == [
        "physical 0x10 to 0x40: the file ends before it: truncated",
        "physical 0x1000 to 0x1010: the file ends before it: truncated",
    ]


def test_pieces_that_share_their_bytes_are_one_memory() -> None:
    memory = _memory((0, 128, 0), (32, 64, 32), (64, 192, 64))
    assert _ranges(memory) == [(0, 192)]
    assert memory.gaps == ()


def test_copies_that_agree_are_no_gap_and_copies_that_differ_are() -> None:
    agreeing = _memory((0, 256, 0), (0, 256, 256))
    assert agreeing.gaps == ()
    differing = _memory((0, 64, 0), (32, 96, 100))
    assert [str(gap) for gap in differing.gaps] == [
        "physical 0x20 to 0x40: two segments hold it and differ; the first is taken"
    ]
    assert differing.read(PhysAddr(32), 64) == DATA[32:64] + DATA[132:164]


def test_no_pieces_are_no_memory() -> None:
    memory = _memory()
    assert (memory.ranges, list(memory.each_run())) == ((), [])


def test_a_file_is_mapped_and_an_empty_one_is_empty(tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "image")  # noqa: PTH118 - a descriptor is what is tested
    for content in (b"abc", b""):
        with open(path, "wb") as file:  # noqa: PTH123 - as above
            file.write(content)
        descriptor = os.open(path, os.O_RDONLY)
        buffer = map_descriptor(descriptor)
        os.close(descriptor)
        assert bytes(buffer) == content


def test_a_stream_is_refused() -> None:
    read, write = os.pipe()
    try:
        with pytest.raises(UsageError, match="save the stream"):
            map_descriptor(read)
    finally:
        os.close(read)
        os.close(write)


pieces = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 300), st.integers(0, 1100)), max_size=6)


@given(pieces)
def test_whatever_the_segments_say_ranges_are_sorted_disjoint_and_readable(made: list[tuple[int, int, int]]) -> None:
    memory = _memory(*((start, start + size, offset) for start, size, offset in made))
    last = -1
    for limits in memory.ranges:
        assert last <= limits.start < limits.end
        last = limits.end
        held = memory.read(limits.start, limits.size)
        spans = memory.spans(limits.start, limits.size)
        assert b"".join(DATA[span.start : span.end] for span in spans) == held
    asked = {a for start, size, offset in made for a in range(start, start + min(size, max(0, len(DATA) - offset)))}
    assert asked == {a for limits in memory.ranges for a in range(limits.start, limits.end)}
