import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.units import PAGE_SIZE
from hypervigil.decode.kallsyms_holes import Holes


def pages(*content: int) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    return np.frombuffer(b"".join(bytes([byte]) * PAGE_SIZE for byte in content), np.uint8)


def test_a_range_is_hit_by_a_zero_page_that_it_shares_a_byte_with() -> None:
    holes = Holes(pages(1, 0, 1), 0, 3 * PAGE_SIZE)
    assert holes.any
    assert not holes.hit(0, PAGE_SIZE)
    assert holes.hit(0, PAGE_SIZE + 1)
    assert holes.hit(2 * PAGE_SIZE - 1, 2 * PAGE_SIZE)
    assert not holes.hit(2 * PAGE_SIZE, 3 * PAGE_SIZE)
    assert not holes.hit(PAGE_SIZE + 8, PAGE_SIZE + 8)


def test_a_page_with_one_byte_is_no_hole() -> None:
    data = pages(0, 0).copy()
    data[PAGE_SIZE + 77] = 1
    holes = Holes(data, 0, len(data))
    assert (holes.hit(0, 8), holes.hit(PAGE_SIZE, PAGE_SIZE + 8)) == (True, False)


def test_only_the_asked_part_of_the_buffer_is_looked_at() -> None:
    holes = Holes(pages(0, 1, 0), PAGE_SIZE + 8, 2 * PAGE_SIZE)
    assert not holes.any
    assert not holes.hit(0, 3 * PAGE_SIZE)


def test_what_is_behind_the_last_whole_page_is_no_hole() -> None:
    data = np.zeros(PAGE_SIZE + 100, np.uint8)
    holes = Holes(data, 0, len(data))
    assert (holes.hit(0, 1), holes.hit(PAGE_SIZE, PAGE_SIZE + 100)) == (True, False)


RANGES = st.lists(st.tuples(st.integers(0, 6 * PAGE_SIZE), st.integers(0, 2 * PAGE_SIZE)), max_size=20)


@given(st.lists(st.booleans(), min_size=6, max_size=6), RANGES)
def test_ranges_are_touched_as_a_look_at_every_page_shows(full: list[bool], ranges: list[tuple[int, int]]) -> None:
    data = pages(*(int(one) for one in full))
    starts = np.array([low for low, _ in ranges], np.int64)
    ends = np.array([min(low + size, len(data)) for low, size in ranges], np.int64)
    wanted = [
        any(not full[page] for page in range(low // PAGE_SIZE, -(-high // PAGE_SIZE))) if high > low else False
        for low, high in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    assert Holes(data, 0, len(data)).touch(starts, ends).tolist() == wanted
