from hypothesis import given
from hypothesis import strategies as st

from hypervigil.report.hexdump import ROW, Cell, each_row, octets, rows_of


def test_differing_bytes_are_marked_on_both_sides() -> None:
    (row,) = each_row("41ff00", "41fe00", 0x1000)
    assert row.address == 0x1000
    assert row.found[0] == Cell(digits="41", ascii="A", differs=False)
    assert row.found[1] == Cell(digits="ff", ascii=".", differs=True)
    assert row.found[2] == Cell(digits="00", ascii=".", differs=False)
    assert [cell.differs for cell in row.expected] == [False, True, False]


def test_a_byte_beyond_the_other_side_differs() -> None:
    (row,) = each_row("0102", "01", None)
    assert [cell.differs for cell in row.found] == [False, True]
    assert [cell.differs for cell in row.expected] == [False]


def test_nothing_differs_from_nothing() -> None:
    (row,) = each_row("0102", "", 0)
    assert row.expected == ()
    assert not any(cell.differs for cell in row.found)


def test_rows_carry_the_address_of_their_first_byte() -> None:
    assert [row.address for row in each_row("00" * 33, "", 0x10)] == [0x10, 0x20, 0x30]


def test_rows_are_bounded_and_the_rest_can_be_counted() -> None:
    digits = "00" * (ROW * 40)
    assert len(list(each_row(digits, "", 0, rows=3))) == 3
    assert rows_of(digits, "") == 40


def test_an_ascii_column_shows_printable_characters_only() -> None:
    (row,) = each_row("1f207e7f80", "", 0)
    assert "".join(cell.ascii for cell in row.found) == ". ~.."


def test_digits_that_are_none_are_no_bytes() -> None:
    assert octets("0x41") == octets("4") == octets("\u0664\u0661") == b""


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_every_byte_stands_in_a_row_and_is_marked_exactly_when_it_differs(found: bytes, expected: bytes) -> None:
    rows = list(each_row(found.hex(), expected.hex(), 0, rows=99))
    assert len(rows) == rows_of(found.hex(), expected.hex())
    cells = [cell for row in rows for cell in row.found]
    assert "".join(cell.digits for cell in cells) == found.hex()
    if expected:
        marks = [at >= len(expected) or expected[at] != value for at, value in enumerate(found)]
        assert [cell.differs for cell in cells] == marks


@given(st.text(st.characters(exclude_categories=())), st.text(), st.none() | st.integers())
def test_any_strings_can_be_drawn(found: str, expected: str, address: int | None) -> None:
    assert len(list(each_row(found, expected, address))) <= 32
