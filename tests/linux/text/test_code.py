"""The text of an object as arrays."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.linux.text.code import Code, among, branch_targets, distinct, gather, is_any, read_code
from tests.linux.kernel_builder import bare_kernel
from tests.linux.text.world import DATA, TEXT, TEXT_END, World, u64


def test_text_is_read_through_the_page_tables_and_a_missing_page_is_remembered() -> None:
    world = World()
    world.put(TEXT + 0xFFE, b"\x01\x02\x03\x04")
    del world.pages[TEXT + 0x2000]
    code = read_code(world.kernel(), "kernel", TEXT, TEXT_END)
    assert code.piece(TEXT + 0xFFE, 4) == b"\x01\x02\x03\x04"
    assert code.missing == ((TEXT + 0x2000, TEXT + 0x3000),)
    places = u64(TEXT + 0x1FFE, TEXT + 0x1FFB, TEXT + 0x2FFF, TEXT + 0x3000, TEXT_END - 4, TEXT - 1)
    assert code.holds(places, 5).tolist() == [False, True, False, True, False, False]


def test_a_zero_page_is_missing_where_the_format_cannot_tell() -> None:
    world = World()
    world.put(TEXT + 0x1000, bytes(4096))
    kernel = world.kernel()
    assert read_code(kernel, "kernel", TEXT, TEXT_END).missing == ()
    kernel.memory.zero_is_missing = True
    assert read_code(kernel, "kernel", TEXT + 8, TEXT_END).missing == ((TEXT + 0x1000, TEXT + 0x2000),)


def test_rows_are_zero_outside_of_the_text() -> None:
    code = Code("kernel", TEXT, bytes(range(1, 9)))
    rows = code.rows(u64(TEXT, TEXT + 6, TEXT - 1, TEXT + 8), 4)
    assert rows.tolist() == [[1, 2, 3, 4], [7, 8, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_branches_wrap_around_the_address_space() -> None:
    rows = np.frombuffer(b"\xe8\xfb\xff\xff\xff\xe8\x00\x00\x00\x80", np.uint8).reshape(2, 5)
    targets = branch_targets(u64(TEXT, 0), rows, 1)
    assert targets.tolist() == [TEXT, (5 - (1 << 31)) % (1 << 64)]


def test_a_pattern_matches_the_beginning_of_a_row() -> None:
    rows = np.frombuffer(b"\x0f\x0b\x00\x0f\x0c\x0b", np.uint8).reshape(2, 3)
    assert is_any(rows, b"\x0f\x0b", b"\x66").tolist() == [True, False]


def test_many_reads_take_bytes_across_pages_and_tell_what_is_missing() -> None:
    world = World()
    world.put(DATA + 0xFFC, b"abcdefgh")
    found = gather(world.kernel().space, u64(DATA + 0xFFC, DATA + 0xFFC, DATA + 0x100000, DATA + 0xFF8), 8)
    assert found.seen.tolist() == [True, True, False, True]
    assert [bytes(row) for row in found.rows] == [b"abcdefgh", b"abcdefgh", bytes(8), bytes(4) + b"abcd"]


@given(st.lists(st.integers(0, 40)), st.lists(st.integers(0, 40)))
def test_sets_of_addresses(values: list[int], known: list[int]) -> None:
    ordered = distinct(u64(*known))
    assert ordered.tolist() == sorted(set(known))
    assert among(u64(*values), ordered).tolist() == [value in known for value in values]


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=8), st.integers(1, 16))
def test_no_address_is_too_wild(addresses: list[int], width: int) -> None:
    code = Code("kernel", TEXT, b"\x90" * 64)
    wild = u64(*addresses)
    assert code.rows(wild, width).shape == (len(addresses), width)
    inside = [a >= TEXT and a + width <= TEXT + 64 for a in addresses]
    assert code.holds(wild, width).tolist() == inside


def test_the_ends_of_a_text_are_missing_where_their_whole_pages_are_zero() -> None:
    image = bare_kernel()
    image.finish()
    image.wipe(TEXT)
    image.wipe(TEXT + 0x1000, 0x800)
    kernel = image.open()
    assert read_code(kernel, "kernel", TEXT + 0x10, TEXT + 0x900).missing == ((TEXT + 0x10, TEXT + 0x900),)
    assert read_code(kernel, "kernel", TEXT + 0x10, TEXT + 0x1800).missing == ((TEXT + 0x10, TEXT + 0x1000),)
    assert read_code(kernel, "kernel", TEXT, TEXT + 0x20).missing == ((TEXT, TEXT + 0x20),)
