import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError
from hypervigil.decode.kallsyms_tokens import (
    MAX_CANDIDATES,
    MAX_NAME,
    NameStream,
    TokenTables,
    as_bytes,
    expand,
    find_token_tables,
    token_tables_at,
    walk_names,
)
from tests.decode.kallsyms_encoder import Section, encode, symbols

DIGITS = b"".join(b"%d\0" % digit for digit in range(10))


def section(count: int = 300) -> Section:
    return encode(symbols(count), "6.4")


def tables(made: Section) -> TokenTables:
    (found,) = [t for t in find_token_tables(made.data) if not t.rejected]
    return found


def stream(made: Section, count: int = 300) -> NameStream:
    low, high = made.places["kallsyms_markers"]
    markers = np.frombuffer(bytes(made.data[low:high]), "<u4").astype(np.int64)
    return walk_names(as_bytes(made.data), made.places["kallsyms_names"][0], markers, count, low)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda raw: np.frombuffer(raw, "<u2")])
def test_any_buffer_is_bytes(kind: object) -> None:
    raw = b"\1\2\3\4"
    assert as_bytes(kind(raw)).tolist() == [1, 2, 3, 4]  # type: ignore[operator] # each makes a buffer


def test_token_tables_are_found_by_their_digits_wherever_they_are() -> None:
    made = section()
    found = tables(made)
    assert (found.table, found.index) == (made.places["kallsyms_token_table"], made.places["kallsyms_token_index"])
    shifted = find_token_tables(b"\xff" * 3 + bytes(made.data))
    assert [t.table[0] for t in shifted if not t.rejected] == [found.table[0] + 3]


def test_digits_alone_are_no_tables() -> None:
    for raw in (DIGITS, DIGITS + b"x\0" * 198 + b"\xff" * 600, DIGITS + b"x" * 70_000 + b"\0" * 300):
        (found,) = find_token_tables(raw)
        assert found.rejected
        assert found.table == found.index == (0, 0)
    assert find_token_tables(b"0123456789") == ()


def test_a_scan_that_is_led_on_stops() -> None:
    found = find_token_tables(DIGITS * (MAX_CANDIDATES + 9))
    assert len(found) == MAX_CANDIDATES + 1
    assert found[-1].rejected == "too many candidates: the scan stopped here"


def test_hinted_tables_are_checked_in_full() -> None:
    made = section()
    table, index = made.places["kallsyms_token_table"][0], made.places["kallsyms_token_index"][0]
    found = token_tables_at(made.data, table, index)
    assert (found.table, found.index) == (made.places["kallsyms_token_table"], made.places["kallsyms_token_index"])
    assert not found.rejected
    for at, there in ((table + 1, index), (table, index + 2), (table - 1, index)):
        assert token_tables_at(made.data, at, there).rejected
    for at, there in ((-1, index), (table, -4), (len(made.data), index), (table, len(made.data) - 511)):
        assert token_tables_at(made.data, at, there).rejected == "the hinted tables lie outside of the buffer"


@pytest.mark.parametrize("entry", [0, 1, 48, 200, 255])
def test_an_index_that_points_beside_a_token_is_refused(entry: int) -> None:
    made = section()
    table, index = made.places["kallsyms_token_table"][0], made.places["kallsyms_token_index"][0]
    made.data[index + 2 * entry] ^= 1
    assert token_tables_at(made.data, table, index).rejected
    assert [t for t in find_token_tables(made.data) if not t.rejected] == []


def test_names_are_walked_from_marker_to_marker() -> None:
    made = section(700)
    found = stream(made, 700)
    assert found.end == made.places["kallsyms_names"][1]
    assert len(found.first) == len(found.length) == 700
    types, names = expand(as_bytes(made.data), found, tables(made))
    assert [t + n for t, n in zip(types, names, strict=True)] == [name for _, name in symbols(700)]


def test_a_name_of_more_than_127_codes_has_two_bytes_of_length() -> None:
    assert int(stream(section()).length.max()) > 127


@pytest.mark.parametrize("at", [0, 5, 200])
def test_names_that_miss_the_next_marker_are_refused(at: int) -> None:
    made = section(700)
    place = made.places["kallsyms_names"][0]
    for _ in range(at):
        place += 1 + made.data[place]
    made.data[place] += 1
    with pytest.raises(DecodeError, match="names do not end at marker 1"):
        stream(made, 700)


def test_names_that_leave_the_buffer_are_refused() -> None:
    made = section()
    del made.data[made.places["kallsyms_names"][1] - 40 :]
    with pytest.raises(DecodeError):
        walk_names(
            as_bytes(made.data), made.places["kallsyms_names"][0], np.array([0, 0], np.int64), 300, len(made.data)
        )


def spelled(codes: bytes, tokens: dict[int, bytes]) -> tuple[str, tuple[str, ...]]:
    """One symbol of these codes, with tokens that are empty but for those given."""
    table, places = b"", []
    for code in range(256):
        places.append(len(table))
        table += tokens.get(code, b"") + b"\0"
    data = as_bytes(bytes([len(codes)]) + codes + table + b"".join(p.to_bytes(2, "little") for p in places))
    start = 1 + len(codes)
    found = TokenTables(start, (start, start + len(table)), (start + len(table), start + len(table) + 512))
    one = NameStream(np.array([1]), np.array([len(codes)]), 1 + len(codes), np.array([False]))
    return expand(data, one, found)


def test_a_symbol_is_its_letter_and_its_name() -> None:
    assert spelled(b"\1\2\1", {1: b"T", 2: b"ab"}) == ("T", ("abT",))
    assert spelled(b"\1\2", {1: b"T\xe9", 2: b""}) == ("T", ("\xe9",))
    assert spelled(b"\1", {1: b"T"}) == ("T", ("",))


@pytest.mark.parametrize("codes", [b"\2", b"\2\2"])
def test_a_symbol_of_nothing_is_refused(codes: bytes) -> None:
    with pytest.raises(DecodeError, match="a symbol is empty or too long"):
        spelled(codes, {1: b"T"})


def test_a_symbol_longer_than_any_is_refused() -> None:
    assert len(spelled(b"\1" * 128, {1: b"x" * 8})[1][0]) == MAX_NAME - 1
    with pytest.raises(DecodeError, match="a symbol is empty or too long"):
        spelled(b"\1" * 129, {1: b"x" * 8})


def test_a_symbol_without_codes_is_refused() -> None:
    made = section()
    found = stream(made)
    with pytest.raises(DecodeError, match="a symbol without codes"):
        expand(as_bytes(made.data), NameStream(found.first, found.length * 0, found.end, found.lost), tables(made))


@settings(max_examples=60)
@given(st.data())
def test_damaged_names_are_walked_or_refused(data: st.DataObject) -> None:
    made = section()
    low, high = made.places["kallsyms_names"]
    for _ in range(data.draw(st.integers(1, 4))):
        made.data[data.draw(st.integers(low, high - 1))] = data.draw(st.integers(0, 255))
    try:
        types, names = expand(as_bytes(made.data), stream(made), tables(made))
    except DecodeError:
        return
    assert len(types) == len(names) == 300
