"""Tables of places, and branches as bytes."""

from hypothesis import given
from hypothesis import strategies as st

from hypervigil.linux.text.code import Code
from hypervigil.linux.text.sites import CALL, Table, branch, column, places_in, relative_places
from tests.linux.text.world import DATA, TEXT, rel, table


def test_a_distance_counts_from_its_own_place() -> None:
    assert relative_places(table(DATA, TEXT, TEXT + 9, DATA + 4)).tolist() == [TEXT, TEXT + 9, DATA + 4]


def test_a_column_of_wide_entries() -> None:
    places, values = column(Table(DATA, bytes(4) + b"\xff\xff\xff\xff" + bytes(4) + b"\x01\0\0\0" + b"half"), 8, 4)
    assert (places.tolist(), values.tolist()) == ([DATA + 4, DATA + 12], [-1, 1])


def test_places_that_were_freed_are_left_out() -> None:
    code = Code("kvm", TEXT, bytes(8))
    assert places_in(code, table(DATA, TEXT + 3, TEXT + 4, TEXT + 8, TEXT - 1), 4).tolist() == [TEXT + 3, TEXT + 4]


@given(st.binary(max_size=64), st.integers(0, (1 << 64) - 1))
def test_any_bytes_are_a_table(data: bytes, address: int) -> None:
    assert len(relative_places(Table(address, data))) == len(data) // 4


def test_a_branch_as_bytes() -> None:
    assert branch(CALL, TEXT, TEXT + 0x100) == rel(b"\xe8", TEXT, TEXT + 0x100)
    assert branch(CALL, TEXT, TEXT - 0x100) == rel(b"\xe8", TEXT, TEXT - 0x100)
    assert branch(CALL, TEXT, 1 << 40) == b""
