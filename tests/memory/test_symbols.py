import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import MissingDescription
from hypervigil.memory.symbols import Losses, Symbols

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


IN_ORDER = ("alpha", None, "gamma", "hidden", None, "mu", "twice", "twice", "weak")
"""Two names are lost: one between alpha and gamma, one between hidden and mu."""

PARTLY = [
    (0x30, "gamma", "t", 8),
    (0x10, "alpha", "T", 16),
    (0x20, "twice", "t", 4),
    (0x18, "", "?", 0),
    (0x50, "mu", "t", 8),
]


def holed(in_order: tuple[str | None, ...] | None = IN_ORDER) -> Symbols:
    """The address of hidden is lost, between 0x30 and 0x38; so are two names."""
    rows = [*PARTLY, (0x10, "weak", "W", 16), (0x40, "twice", "d", 0)]
    addresses = np.array([row[0] for row in rows], np.uint64)
    losses = Losses(placeless=("hidden",), ranges=((0x30, 0x38),), in_order=in_order)
    return Symbols(addresses, [row[1] for row in rows], "".join(row[2] for row in rows), "a table", losses=losses)


def test_what_is_there_is_found_in_a_table_with_holes_too() -> None:
    symbols = holed()
    assert (symbols.address("gamma"), symbols.find("zeta", "weak"), symbols.all_of("twice")) == (
        0x30,
        0x10,
        [0x20, 0x40],
    )
    assert "alpha" in symbols


@pytest.mark.parametrize("name", ["beta", "hidden", "iota", "lambda"])
def test_a_name_that_may_be_lost_is_not_said_to_be_absent(name: str) -> None:
    symbols = holed()
    assert symbols.may_be_lost(name)
    for question in (symbols.find, symbols.address, symbols.all_of, symbols.__contains__):
        with pytest.raises(MissingDescription, match=f"symbol {name} "):
            question(name)


@pytest.mark.parametrize("name", ["aaa", "gammb", "h", "n", "twib", "twicf", "u", "zeta"])
def test_a_name_that_the_order_has_no_room_for_is_absent(name: str) -> None:
    symbols = holed()
    assert not symbols.may_be_lost(name)
    assert symbols.find(name) is None
    assert symbols.all_of(name) == []
    assert name not in symbols


def test_one_more_symbol_of_a_name_may_be_lost_beside_the_known_ones() -> None:
    symbols = holed(("alpha", "gamma", "hidden", "twice", None, "weak", "zeta"))
    assert symbols.address("twice") == 0x20
    with pytest.raises(MissingDescription, match="twice"):
        symbols.all_of("twice")


@pytest.mark.parametrize("in_order", [None, ("gamma", "alpha", "twice")])
def test_without_an_order_every_unknown_name_may_be_lost(in_order: tuple[str, ...] | None) -> None:
    symbols = holed(in_order)
    assert symbols.may_be_lost("aaa")
    assert symbols.find("gamma") == 0x30
    assert not made(ROWS).may_be_lost("aaa")


def test_an_address_is_doubtful_where_a_lost_symbol_may_be_the_nearest() -> None:
    symbols = holed()
    doubtful = [at for at in range(0x10, 0x48, 4) if symbols.doubtful(at)]
    assert doubtful == [0x18, 0x1C, 0x30, 0x34, 0x38]
    assert not any(made(ROWS).doubtful(at) for at in range(0x48))


def test_what_follows_a_symbol_may_be_lost() -> None:
    symbols = holed()
    assert (symbols.end_of("alpha"), symbols.end_of("twice")) == (0x18, 0x30)
    with pytest.raises(MissingDescription, match="what follows symbol gamma is lost from a table"):
        symbols.end_of("gamma")


NAMES = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=10)


@given(NAMES, st.sets(st.integers(0, 9)), st.sampled_from("abcdefghi"))
def test_a_name_is_called_absent_only_if_it_is(names: list[str], lost: set[int], asked: str) -> None:
    order = sorted(names)
    seen = tuple(None if at in lost else name for at, name in enumerate(order))
    kept = [name for name in seen if name is not None]
    addresses = np.arange(len(kept), dtype=np.uint64)
    symbols = Symbols(addresses, kept, "t" * len(kept), "a table", losses=Losses((), (), seen))
    if not symbols.may_be_lost(asked):
        assert symbols.all_of(asked) == [at for at, name in enumerate(kept) if name == asked]
        assert kept.count(asked) == order.count(asked)
    if not lost:
        assert not symbols.may_be_lost(asked)
