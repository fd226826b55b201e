import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.units import PAGE_SIZE
from hypervigil.decode.kallsyms_rebuilt import NamesHint, rebuilt_body
from hypervigil.decode.kallsyms_tokens import as_bytes, expand, find_token_tables
from tests.decode.kallsyms_encoder import KERNEL, Section, encode, symbols

COUNT = 36_000
MADE = symbols(COUNT)


def section(*lost: str) -> tuple[Section, NamesHint]:
    """A section without the first pages of some tables, and where its tables begin."""
    made = encode(MADE, "6.2")
    for name in lost:
        low = made.places[f"kallsyms_{name}"][0] & -PAGE_SIZE
        made.data[low : low + PAGE_SIZE] = bytes(PAGE_SIZE)
    return made, NamesHint(*(made.places[f"kallsyms_{name}"][0] for name in NamesHint._fields))


def test_names_are_walked_up_to_the_hole_in_which_the_markers_are() -> None:
    made, hint = section("markers")
    data = as_bytes(made.data)
    body = rebuilt_body(data, made.places["kallsyms_token_table"][0], hint)
    assert body is not None
    assert (body.count, body.markers, body.sequence) == (
        COUNT,
        made.places["kallsyms_markers"],
        made.places["kallsyms_seqs_of_names"],
    )
    types, names = expand(data, body.stream, find_token_tables(made.data)[0])
    lost = names.count("")
    assert 0 < lost < 600
    assert [letter + name for letter, name in zip(types, names, strict=True)][: COUNT - lost] == [
        name for _, name in MADE
    ][: COUNT - lost]
    assert body.stream.lost[-lost:].all()


def aligned() -> tuple[Section, NamesHint]:
    """A section whose markers begin with a page, so that no name is lost with them; one name has 300 codes."""
    rows = sorted([*MADE, (KERNEL + 16 * 100, "t" + "." * 300)])
    start, _ = encode(rows, "6.2").places["kallsyms_markers"]
    made = encode(rows, "6.2", lead=PAGE_SIZE + -start % PAGE_SIZE)
    start, _ = made.places["kallsyms_markers"]
    assert start % PAGE_SIZE == 0
    made.data[start : start + PAGE_SIZE] = bytes(PAGE_SIZE)
    return made, NamesHint(*(made.places[f"kallsyms_{name}"][0] for name in NamesHint._fields))


def test_where_only_markers_are_lost_every_name_is_walked() -> None:
    made, hint = aligned()
    body = rebuilt_body(as_bytes(made.data), made.places["kallsyms_token_table"][0], hint)
    assert body is not None
    assert (body.count, body.num_syms) == (COUNT + 1, made.places["kallsyms_num_syms"])
    assert body.names == made.places["kallsyms_names"]
    assert not body.stream.lost.any()
    types, names = expand(as_bytes(made.data), body.stream, find_token_tables(made.data)[0])
    assert types[names.index("." * 300)] == "t"
    assert names[-1] == max(MADE)[1][1:]


@pytest.mark.parametrize("number", [COUNT // 2 + 50, COUNT - 10])
def test_behind_a_record_that_is_none_every_name_is_lost(number: int) -> None:
    made, hint = aligned()
    whole = rebuilt_body(as_bytes(made.data), made.places["kallsyms_token_table"][0], hint)
    assert whole is not None
    made.data[int(whole.stream.first[number]) - 1] = 0
    body = rebuilt_body(as_bytes(made.data), made.places["kallsyms_token_table"][0], hint)
    assert body is not None
    assert body.stream.lost.tolist() == [False] * number + [True] * (COUNT + 1 - number)
    assert body.names[1] == made.places["kallsyms_markers"][0]


def test_a_record_that_leaves_the_names_is_none() -> None:
    made, hint = aligned()
    whole = rebuilt_body(as_bytes(made.data), made.places["kallsyms_token_table"][0], hint)
    assert whole is not None
    made.data[int(whole.stream.first[-1]) - 1] = 0x7F
    body = rebuilt_body(as_bytes(made.data), made.places["kallsyms_token_table"][0], hint)
    assert body is not None
    assert np.flatnonzero(body.stream.lost).tolist() == [COUNT]


def test_markers_that_are_there_are_not_made_again() -> None:
    made, hint = section()
    assert rebuilt_body(as_bytes(made.data), made.places["kallsyms_token_table"][0], hint) is None


def test_where_names_are_lost_early_most_are_lost() -> None:
    made, hint = section("markers")
    at = (hint.names & -PAGE_SIZE) + PAGE_SIZE
    made.data[at : at + PAGE_SIZE] = bytes(PAGE_SIZE)
    assert rebuilt_body(as_bytes(made.data), made.places["kallsyms_token_table"][0], hint) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_syms": -4},
        {"num_syms": 0},
        {"num_syms": 1 << 40},
        {"names": 0},
        {"names": 1 << 40},
    ],
)
def test_a_hint_that_does_not_fit_is_none(wrong: dict[str, int]) -> None:
    made, hint = section("markers")
    assert rebuilt_body(as_bytes(made.data), made.places["kallsyms_token_table"][0], hint._replace(**wrong)) is None


SMALL = encode(symbols(900), "6.2")


@given(st.data())
def test_any_hint_into_any_bytes_gives_names_or_none(data: st.DataObject) -> None:
    content = bytearray(SMALL.data)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(content) // PAGE_SIZE)) * PAGE_SIZE
        content[at : at + PAGE_SIZE] = bytes(len(content[at : at + PAGE_SIZE]))
    place = st.one_of(st.integers(-8, len(content) + 8), st.sampled_from([at for at, _ in SMALL.places.values()]))
    hint = NamesHint(*(data.draw(place) for _ in range(2)))
    body = rebuilt_body(as_bytes(content), data.draw(place), hint)
    if body is not None:
        assert len(body.stream.first) == len(body.stream.lost) == body.count
