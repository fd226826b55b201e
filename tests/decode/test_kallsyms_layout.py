import pytest

from hypervigil.core.errors import DecodeError
from hypervigil.decode.kallsyms_layout import Body, each_body
from hypervigil.decode.kallsyms_tokens import as_bytes
from tests.decode.kallsyms_encoder import Section, encode, symbols

LAYOUTS = ["5.10", "5.10-addresses", "6.2", "6.4", "6.4-addresses", "7.0"]


def body(made: Section) -> Body:
    return next(each_body(as_bytes(made.data), made.places["kallsyms_token_table"][0]))


@pytest.mark.parametrize("count", [300, 511, 512, 513, 2000])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tables_are_found_around_the_tokens(layout: str, count: int) -> None:
    made = encode(symbols(count), layout)
    found = body(made)
    assert found.count == count
    assert (found.num_syms, found.names, found.markers) == tuple(
        made.places[f"kallsyms_{name}"] for name in ("num_syms", "names", "markers")
    )
    assert found.sequence == (made.places["kallsyms_seqs_of_names"] if layout == "6.2" else None)


@pytest.mark.parametrize("table", ["kallsyms_markers", "kallsyms_names", "kallsyms_num_syms"])
def test_damage_to_what_all_layouts_share_is_told(table: str) -> None:
    made = encode(symbols(700), "6.4")
    start, end = made.places[table]
    made.data[start:end] = b"\xff" * (end - start)
    with pytest.raises(DecodeError):
        body(made)


def test_nothing_before_the_tokens_is_no_body() -> None:
    for size in (0, 3, 64, 4096):
        with pytest.raises(DecodeError, match="nothing before the token table fits"):
            next(each_body(as_bytes(b"\xa5" * (size + 64)), size))
