import pytest

from hypervigil.core.errors import MissingMemory
from hypervigil.core.units import PAGE_SIZE, PhysAddr
from hypervigil.memory.holes import MAX_STRETCH, view_over_holes
from hypervigil.memory.open import read_image
from hypervigil.memory.reader import Reader
from tests.decode.test_lime import lime


def memory(*ranges: tuple[int, int]) -> Reader:
    """Memory whose ranges, ``(start, size)``, hold the numbers of their pages from 1 on."""
    return read_image(memoryview(lime(*((at, content(at, size)) for at, size in ranges))))


def content(start: int, size: int) -> bytes:
    return bytes(1 + at // PAGE_SIZE % 200 for at in range(start, start + size))


def pages(reader: Reader, low: int, high: int) -> list[int]:
    view = bytes(view_over_holes(reader, PhysAddr(low), high))
    assert len(view) % PAGE_SIZE == 0
    numbers = [view[at] for at in range(0, len(view), PAGE_SIZE)]
    assert all(view[i * PAGE_SIZE : (i + 1) * PAGE_SIZE] == bytes([n]) * PAGE_SIZE for i, n in enumerate(numbers))
    return numbers


def test_pages_that_are_not_there_are_zero() -> None:
    reader = memory((0, 0x2000), (0x4000, 0x1000), (0x6000, 0x2000))
    assert pages(reader, 0x1000, 0x8000) == [2, 0, 0, 5, 0, 7, 8]
    assert pages(reader, 0x2000, 0x7000) == [0, 0, 5, 0, 7]


def test_it_ends_where_memory_does() -> None:
    assert pages(memory((0, 0x2000), (0x4000, 0x1000)), 0x1000, 0x10_0000) == [2, 0, 0, 5]


def test_a_page_of_which_a_part_is_not_there_is_zero_from_end_to_end() -> None:
    reader = memory((0, 0x1800), (0x2000, 0x1000), (0x4800, 0x800), (0x6000, 0x1000))
    assert pages(reader, 0, 0x7000) == [1, 0, 3, 0, 0, 0, 7]


def test_a_page_of_two_ranges_is_there_whole() -> None:
    assert pages(memory((0, 0x1800), (0x1800, 0x800), (0x4000, 0x1000)), 0, 0x5000) == [1, 2, 0, 0, 5]


def test_what_is_there_whole_is_no_copy() -> None:
    reader = memory((0, 0x3000))
    assert view_over_holes(reader, PhysAddr(0x1000), 0x2000).obj is reader.view(PhysAddr(0), 1).obj


@pytest.mark.parametrize(("low", "high"), [(0x5000, 0x6000), (0x1000, 0x2000), (0x2000, 0x1000), (0, MAX_STRETCH + 1)])
def test_where_nothing_is_and_what_is_too_long_is_missing(low: int, high: int) -> None:
    reader = memory((0, 0x1000), (0x3000, 0x800), (0x4000, 0x400), (2 * MAX_STRETCH, 0x1000))
    with pytest.raises(MissingMemory):
        view_over_holes(reader, PhysAddr(low), high)
    with pytest.raises(MissingMemory):
        view_over_holes(memory((0, 0x1000)), PhysAddr(0x1000), 0x2000)
