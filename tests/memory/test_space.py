import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import MissingMemory
from hypervigil.core.evidence import Span
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.memory.space import AddressSpace
from tests.memory.page_tables import Image

BASE = VirtAddr(0xFFFF_FFFF_8100_0000)


def scattered() -> Image:
    """Four pages that follow one another virtually; the third stands before the second, the fourth behind it."""
    image = Image()
    first, third, second, fourth = (image.frame() for _ in range(4))
    for index, frame in enumerate((first, second, third, fourth)):
        image.map(BASE + index * PAGE_SIZE, frame)
        image.data[frame : frame + PAGE_SIZE] = bytes([ord("a") + index]) * PAGE_SIZE
    return image


def test_a_range_is_read_through_its_pages() -> None:
    space = scattered().space()
    assert space.read(VirtAddr(BASE + PAGE_SIZE - 2), 4) == b"aabb"
    whole = space.read(BASE, 4 * PAGE_SIZE)
    assert whole == b"".join(letter * PAGE_SIZE for letter in (b"a", b"b", b"c", b"d"))


def test_spans_point_at_the_bytes_wherever_they_are() -> None:
    image = scattered()
    space = image.space()
    start, size = BASE + PAGE_SIZE - 2, 2 * PAGE_SIZE + 4
    spans = space.spans(VirtAddr(start), size)
    assert b"".join(image.data[s.start : s.end] for s in spans) == space.read(VirtAddr(start), size)
    assert [s.size for s in spans] == [2, PAGE_SIZE, PAGE_SIZE, 2]


def test_spans_of_neighbours_are_one() -> None:
    image = Image()
    frame = image.page(BASE, b"x" * 3 * PAGE_SIZE)
    assert image.space().spans(VirtAddr(BASE + 1), 2 * PAGE_SIZE) == (
        Span("memory", frame + 1, frame + 1 + 2 * PAGE_SIZE),
    )


def test_spans_in_a_lime_file_count_its_headers() -> None:
    image = Image()
    hole = image.frame()
    frame = image.page(BASE, b"needle" * 100)
    memory = image.lime(hole)
    (span,) = image.space(memory).spans(BASE, 6)
    assert span.start == frame - PAGE_SIZE + 2 * 32  # one page less, two headers more


def test_a_zero_page_is_missing_in_a_raw_image_only() -> None:
    image = scattered()
    image.wipe(BASE + PAGE_SIZE)
    with pytest.raises(MissingMemory, match="all zero, which this format cannot tell from missing") as fault:
        image.space().read(BASE, 3 * PAGE_SIZE)
    assert (fault.value.address, fault.value.virtual) == (BASE + PAGE_SIZE, True)
    assert image.space().read(VirtAddr(BASE + PAGE_SIZE), 8, zero_ok=True) == bytes(8)
    assert image.space(image.lime()).read(VirtAddr(BASE + PAGE_SIZE), 8) == bytes(8)


def test_a_page_with_one_byte_set_is_not_zero() -> None:
    image = scattered()
    image.wipe(BASE)
    image.poke(BASE + PAGE_SIZE - 1, b"\1")
    assert image.space().read(BASE, 8) == bytes(8)


def test_pieces_keep_their_place_where_one_is_missing() -> None:
    image = scattered()
    image.wipe(BASE + PAGE_SIZE)
    pieces = image.space().each_piece(VirtAddr(BASE + 4000), 2 * PAGE_SIZE)
    assert pieces == [
        (BASE + 4000, 96, b"a" * 96),
        (BASE + PAGE_SIZE, PAGE_SIZE, None),
        (BASE + 2 * PAGE_SIZE, 4000, b"c" * 4000),
    ]


def test_a_missing_frame_is_never_padded() -> None:
    image = scattered()
    space = image.space(image.lime(image.physical(BASE + PAGE_SIZE)))
    with pytest.raises(MissingMemory):
        space.read(VirtAddr(BASE + PAGE_SIZE - 1), 2)
    with pytest.raises(MissingMemory):
        space.spans(VirtAddr(BASE + PAGE_SIZE - 1), 2)
    assert space.read(VirtAddr(BASE + PAGE_SIZE - 1), 1) == b"a"


@pytest.mark.parametrize(
    ("address", "size"),
    [(BASE, 0), (BASE, -1), (BASE, 1 << 63), (-8, 8), ((1 << 64) - 4, 8), (1 << 64, 1), (BASE, (1 << 28) + 1)],
)
def test_what_is_no_range_is_refused_before_anything_is_made(address: int, size: int) -> None:
    space = scattered().space()
    for ask in (space.read, space.spans, space.each_piece):
        with pytest.raises(MissingMemory, match="no such range"):
            ask(VirtAddr(address), size)


def test_the_last_byte_of_all_can_be_read() -> None:
    image = Image()
    image.page((1 << 64) - PAGE_SIZE, b"z" * PAGE_SIZE)
    assert image.space().read(VirtAddr((1 << 64) - 8), 8) == b"z" * 8


def test_numbers_and_texts_cross_pages() -> None:
    image = scattered()
    image.poke(BASE + PAGE_SIZE - 3, b"\x01\x02\x03\x04\x05\x06\x07\x08")
    assert image.space().u64(VirtAddr(BASE + PAGE_SIZE - 3)) == 0x0807060504030201
    image.poke(BASE + PAGE_SIZE - 3, b"caf\xe9s\0")
    assert image.space().text(VirtAddr(BASE + PAGE_SIZE - 3), 64) == "caf\xe9s"
    assert image.space().text(VirtAddr(BASE + PAGE_SIZE - 3), 4) == "caf\xe9"


def test_a_text_that_ends_before_a_missing_page_is_whole() -> None:
    image = Image()
    image.page(BASE, b"a" * PAGE_SIZE)
    image.poke(BASE + PAGE_SIZE - 4, b"end\0")
    assert image.space().text(VirtAddr(BASE + PAGE_SIZE - 4), 64) == "end"
    image.poke(BASE + PAGE_SIZE - 1, b"!")
    with pytest.raises(MissingMemory):
        image.space().text(VirtAddr(BASE + PAGE_SIZE - 4), 64)


@given(st.integers(0, 4 * PAGE_SIZE - 1), st.integers(1, 2 * PAGE_SIZE))
def test_reads_and_spans_and_pieces_agree(offset: int, size: int) -> None:
    image = scattered()
    space: AddressSpace = image.space()
    start = VirtAddr(BASE + offset)
    pieces = space.each_piece(start, size)
    assert pieces[0][0] == start
    assert sum(length for _, length, _ in pieces) == size
    if offset + size > 4 * PAGE_SIZE:
        assert pieces[-1][2] is None
        return
    read = space.read(start, size)
    assert b"".join(data or b"" for _, _, data in pieces) == read
    assert b"".join(image.data[s.start : s.end] for s in space.spans(start, size)) == read


LARGE = 1 << 21


def large(*, zero: tuple[int, ...] = (), cut: int = 0) -> Image:
    """A leaf of 2 MiB at `BASE`, some pages of which are zero, or of which the image lacks the last bytes."""
    image = Image(2 * LARGE - cut)
    image.map(BASE, LARGE, size=LARGE)
    image.data[LARGE:] = b"".join(bytes([page % 251 + 1]) * PAGE_SIZE for page in range(512))[: LARGE - cut]
    for page in zero:
        image.data[LARGE + page * PAGE_SIZE : LARGE + (page + 1) * PAGE_SIZE] = bytes(PAGE_SIZE)
    return image


def test_a_large_page_is_one_piece() -> None:
    image = large()
    ((start, size, data),) = image.space().each_piece(VirtAddr(BASE + 5), LARGE - 5)
    assert (start, size) == (BASE + 5, LARGE - 5)
    assert data == bytes(image.data[LARGE + 5 :])


def test_zero_pages_cut_a_large_page_where_they_cannot_be_told_from_missing() -> None:
    image = large(zero=(3, 4, 511))
    pieces = image.space().each_piece(BASE, LARGE)
    assert [(int(at - BASE) // PAGE_SIZE, size // PAGE_SIZE, data is None) for at, size, data in pieces] == [
        (0, 3, False),
        (3, 2, True),
        (5, 506, False),
        (511, 1, True),
    ]
    whole = image.space(image.lime(LARGE * 8)).each_piece(BASE, LARGE)
    assert [size for _, size, _ in whole] == [LARGE]


def test_a_large_page_ends_where_memory_ends() -> None:
    image = large(cut=3 * PAGE_SIZE)
    pieces = image.space().each_piece(BASE, LARGE)
    assert [(size, data is None) for _, size, data in pieces] == [(LARGE - 3 * PAGE_SIZE, False), (3 * PAGE_SIZE, True)]


@given(st.sets(st.integers(0, 7)), st.integers(0, 8 * PAGE_SIZE), st.integers(1, 8 * PAGE_SIZE), st.integers(0, 3))
def test_pieces_of_a_large_page_say_what_reading_says(zero: set[int], offset: int, size: int, cut: int) -> None:
    space = large(zero=tuple(zero), cut=(504 + cut) * PAGE_SIZE).space()
    at = BASE + offset
    for start, length, data in space.each_piece(VirtAddr(at), size):
        assert start == at
        at += length
        for byte in {start, start + length - 1}:
            try:
                read: bytes | None = space.read(VirtAddr(byte), 1)
            except MissingMemory:
                read = None
            assert read == (None if data is None else data[byte - start : byte - start + 1])
    assert at == BASE + offset + size
