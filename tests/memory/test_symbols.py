import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import MissingDescription
from hypervigil.memory.symbols import Symbols

ROWS = [
    (0x30, "gamma", "t", 8),
    (0x10, "alpha", "T", 16),
    (0x20, "twice", "t", 4),
    (0x10, "weak", "W", 16),
    (0x40, "twice", "d", 0),
]


def made(rows: list[tuple[int, str, str, int]]) -> Symbols:
    addresses = np.array([row[0] for row in rows], np.uint64)
    sizes = np.array([row[3] for row in rows], np.uint64)
    return Symbols(addresses, [row[1] for row in rows], "".join(row[2] for row in rows), "a table", sizes)


def test_the_table_is_sorted_with_all_its_columns() -> None:
    symbols = made(ROWS)
    assert symbols.addresses == [0x10, 0x10, 0x20, 0x30, 0x40]
    assert symbols.names == ["alpha", "weak", "twice", "gamma", "twice"]
    assert (symbols.types, symbols.sizes) == ("TWttd", [16, 16, 4, 8, 0])
    assert len(symbols) == 5


def test_a_name_stands_for_its_lowest_address() -> None:
    symbols = made(ROWS)
    assert (symbols.address("twice"), symbols.all_of("twice")) == (0x20, [0x20, 0x40])
    assert (symbols.all_of("gamma"), symbols.all_of("delta")) == ([0x30], [])
    assert "twice" in symbols
    assert "delta" not in symbols


def test_an_unknown_name_is_missing_from_the_named_table() -> None:
    with pytest.raises(MissingDescription, match="symbol delta was not found in a table"):
        made(ROWS).address("delta")


def test_the_first_known_name_is_found() -> None:
    symbols = made(ROWS)
    assert symbols.find("delta", "gamma", "alpha") == 0x30
    assert symbols.find("delta") is None


def test_ends_are_the_next_other_address() -> None:
    symbols = made(ROWS)
    assert (symbols.end_of("alpha"), symbols.end_of("weak"), symbols.end_of("gamma")) == (0x20, 0x20, 0x40)
    assert made(ROWS[:1]).end_of("gamma") is None


def test_an_address_at_the_top_is_no_negative_number() -> None:
    symbols = made([((1 << 64) - 8, "top", "t", 8), (8, "low", "t", 8)])
    assert symbols.names == ["low", "top"]
    assert symbols.nearest((1 << 64) - 1) == 1


ROW = st.tuples(st.integers(0, 60), st.sampled_from("abcd"), st.sampled_from("tTd"), st.integers(0, 9))


@given(st.lists(ROW, max_size=20), st.integers(-1, 70), st.integers(0, 70))
def test_looking_up_is_what_a_plain_search_finds(
    rows: list[tuple[int, str, str, int]], address: int, other: int
) -> None:
    symbols = made(rows)
    ordered = sorted(rows, key=lambda row: row[0])
    below = [row[0] for row in ordered if row[0] <= address]
    nearest = symbols.nearest(address)
    assert (nearest is None) == (not below)
    if nearest is not None:
        assert nearest == [row[0] for row in ordered].index(below[-1])
    assert symbols.exactly(address) == [row[1] for row in ordered if row[0] == address]
    inside = [index for index, row in enumerate(ordered) if address <= row[0] < other]
    assert list(symbols.between(address, other)) == inside
    for name in "abcd":
        assert symbols.all_of(name) == [row[0] for row in ordered if row[1] == name]
