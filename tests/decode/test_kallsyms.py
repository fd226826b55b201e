import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.decode.kallsyms import (
    KallsymsTable,
    NamesHint,
    decode_kallsyms,
    find_token_tables,
    search_kallsyms,
    token_tables_at,
)
from tests.decode.kallsyms_encoder import KERNEL, Section, encode, symbols

LAYOUTS = ["5.10", "5.10-addresses", "6.2", "6.4", "6.4-addresses", "7.0"]
PERCPU = ["5.10-percpu", "6.4-percpu"]


@pytest.mark.parametrize("count", [300, 512, 777])
@pytest.mark.parametrize("layout", LAYOUTS + PERCPU)
def test_every_layout_decodes_to_what_was_encoded(layout: str, count: int) -> None:
    made = symbols(count)
    if layout in PERCPU:
        made = [(0, "Airq_stack"), (0x1FBC0, "Acurrent_task"), *made]
    section = encode(made, layout)
    (table,) = search_kallsyms(section.data, VirtAddr(KERNEL)).tables
    assert table.addresses.tolist() == [address for address, _ in made]
    assert table.names == tuple(name[1:] for _, name in made)
    assert table.types == "".join(name[0] for _, name in made)
    assert dict(table.ranges) == section.places
    assert table.contradictions == ()
    assert table.anchored


def test_place_relative_offsets_wait_for_the_address_of_the_buffer() -> None:
    section = encode(symbols(600), "7.0")
    (table,) = search_kallsyms(section.data).tables
    assert not table.anchored
    assert int(table.addresses[0]) == 0
    moved = table.rebased(VirtAddr(KERNEL + 0x1000))
    assert int(moved.addresses[0]) == KERNEL + 0x1000
    with pytest.raises(ValueError, match="anchored already"):
        moved.rebased(VirtAddr(KERNEL))


def test_kaslr_moves_the_base_and_with_it_every_address() -> None:
    section = encode(symbols(300), "6.4")
    start, end = section.places["kallsyms_relative_base"]
    section.data[start:end] = struct.pack("<Q", KERNEL + 0x1D20_0000)
    (table,) = search_kallsyms(section.data).tables
    assert table.relative_base == KERNEL + 0x1D20_0000
    assert int(table.addresses[0]) == KERNEL + 0x1D20_0000


def test_the_same_name_twice_is_two_positions() -> None:
    made = [*symbols(300), (KERNEL + 0x9000, "tkvm_0_handler")]
    (table,) = search_kallsyms(encode(made, "6.2").data).tables
    assert table.by_name()["kvm_0_handler"] == (table.names.index("kvm_0_handler"), len(made) - 1)


def test_hinted_tables_need_no_scan() -> None:
    section = encode(symbols(400), "6.4")
    places = section.places
    hinted = token_tables_at(section.data, places["kallsyms_token_table"][0], places["kallsyms_token_index"][0])
    assert hinted.rejected == ""
    assert len(decode_kallsyms(section.data, hinted).names) == 400


@pytest.mark.parametrize(("table", "index"), [(-1, 0), (0, 1 << 40), (0, 4096)])
def test_wrong_hints_are_rejected_with_a_reason(table: int, index: int) -> None:
    section = encode(symbols(300), "6.4")
    assert token_tables_at(section.data, table, index).rejected
    with pytest.raises(DecodeError, match="hinted"):
        decode_kallsyms(section.data, token_tables_at(section.data, table, index))


def test_digits_that_are_no_tokens_are_kept_with_a_reason() -> None:
    buffer = b"".join(b"%d\0" % digit for digit in range(10)) + bytes(64)
    (candidate,) = find_token_tables(buffer)
    assert "208 tokens" in candidate.rejected
    assert search_kallsyms(buffer).rejected == (candidate,)


def _patched(section: Section, name: str, offset: int, value: bytes) -> bytearray:
    start = section.places[name][0] + offset
    section.data[start : start + len(value)] = value
    return section.data


@pytest.mark.parametrize(
    ("name", "offset", "value", "reason"),
    [
        ("kallsyms_markers", 4, b"\x01", "marker"),
        ("kallsyms_num_syms", 0, b"\xff\xff", "markers"),
        ("kallsyms_names", 0, b"\x01", "marker 1"),
        ("kallsyms_token_index", 0x62, b"\xff", "no token index"),
        ("kallsyms_relative_base", 0, bytes(8), "no table of addresses"),
    ],
)
def test_a_broken_table_is_refused_by_name(name: str, offset: int, value: bytes, reason: str) -> None:
    search = search_kallsyms(_patched(encode(symbols(700), "6.4"), name, offset, value))
    assert search.tables == ()
    assert reason in search.rejected[0].rejected


def test_an_address_out_of_order_is_a_contradiction_and_not_a_refusal() -> None:
    data = _patched(encode(symbols(700), "6.4"), "kallsyms_offsets", 4 * 350, struct.pack("<I", 0x3FFF_0000))
    (table,) = search_kallsyms(data).tables
    assert [one.text for one in table.contradictions] == ["symbol 350, kvm_350_handler, is out of order"]
    assert [one.at for one in table.contradictions] == [table.ranges["kallsyms_offsets"][0] + 4 * 350]
    assert int(table.addresses[350]) == KERNEL + 0x3FFF_0000
    assert np.flatnonzero(table.placeless).tolist() == [350]


@pytest.mark.parametrize("position", [10, 350, 698])
@pytest.mark.parametrize("value", [0, 0x3FFF_0000])
def test_of_two_addresses_the_misplaced_one_is_told(position: int, value: int) -> None:
    place = 4 * position
    data = _patched(encode(symbols(700), "6.4"), "kallsyms_offsets", place, struct.pack("<I", value))
    (table,) = search_kallsyms(data).tables
    (told,) = [one.text for one in table.contradictions]
    assert told == f"symbol {position}, {table.names[position]}, is out of order"
    assert np.flatnonzero(table.placeless).tolist() == [position]


def test_a_misplaced_symbol_whose_name_is_lost_is_told_by_its_number() -> None:
    section = encode(symbols(6000), "6.4")
    names, end = section.places["kallsyms_names"]
    hole = (names + (end - names) // 2) & -4096
    section.data[hole : hole + 4096] = bytes(4096)
    (table,) = search_kallsyms(section.data).tables
    nameless = [position for position, name in enumerate(table.names) if not name]
    position = nameless[len(nameless) // 2]
    place = section.places["kallsyms_offsets"][0] + 4 * position
    section.data[place : place + 4] = struct.pack("<I", 0x3FFF_0000)
    (table,) = search_kallsyms(section.data).tables
    assert f"symbol {position}, whose name is lost, is out of order" in [one.text for one in table.contradictions]


@pytest.mark.parametrize("layout", ["6.2", "6.4", "7.0"])
def test_a_symbol_hidden_from_lookup_by_name_is_a_contradiction(layout: str) -> None:
    data = _patched(encode(symbols(700), layout), "kallsyms_seqs_of_names", 0, (699).to_bytes(3, "big"))
    (table,) = search_kallsyms(data).tables
    assert "leaves 1 symbols out" in table.contradictions[0].text


def test_a_stale_copy_is_a_table_too() -> None:
    one = bytes(encode(symbols(300), "5.10").data)
    pages = one + bytes(-len(one) % 4096)
    assert len(search_kallsyms(pages * 2).tables) == 2


@pytest.mark.parametrize("kind", [bytes, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_any_buffer_is_read_alike(kind: type) -> None:
    data = encode(symbols(300), "6.4").data
    assert len(search_kallsyms(kind(data)).tables) == 1


@given(st.data())
def test_damaged_sections_give_a_table_or_a_reason(data: st.DataObject) -> None:
    section = encode(symbols(300), data.draw(st.sampled_from(LAYOUTS + PERCPU)), lead=64)
    for _ in range(data.draw(st.integers(1, 12))):
        place = data.draw(st.integers(0, len(section.data) - 1))
        section.data[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(section.data)))
    search = search_kallsyms(section.data[data.draw(st.integers(0, cut)) & ~7 : cut])
    for table in search.tables:
        assert len(table.names) == len(table.types) == len(table.addresses)
    assert all(candidate.rejected for candidate in search.rejected)


@given(st.binary(max_size=2048))
def test_any_bytes_are_searched(buffer: bytes) -> None:
    assert search_kallsyms(buffer).tables == ()


COUNT = 12_000


def _with_holes(layout: str, table: str, *numbers: int) -> tuple[KallsymsTable, Section, list[tuple[int, str]]]:
    """A decoded table of which whole pages inside one of its tables are zero."""
    made = symbols(COUNT)
    section = encode(made, layout)
    start, end = section.places[table]
    inside = range(-(-start // PAGE_SIZE), end // PAGE_SIZE)
    for number in numbers:
        at = inside[number] * PAGE_SIZE
        section.data[at : at + PAGE_SIZE] = bytes(PAGE_SIZE)
    (table_found,) = search_kallsyms(section.data, VirtAddr(KERNEL)).tables
    return table_found, section, made


@pytest.mark.parametrize("numbers", [(0,), (1,), (-1,), (0, 1, -1)])
@pytest.mark.parametrize("layout", ["5.10", "6.2", "6.4", "7.0"])
def test_names_around_a_lost_page_are_read(layout: str, numbers: tuple[int, ...]) -> None:
    table, _, made = _with_holes(layout, "kallsyms_names", *numbers)
    lost = [position for position, name in enumerate(table.names) if not name]
    assert all(found in {name[1:], ""} for found, (_, name) in zip(table.names, made, strict=True))
    assert all(table.types[position] == "?" for position in lost)
    assert table.addresses.tolist() == [address for address, _ in made]
    assert len(numbers) * 400 < len(lost) < len(numbers) * 1100
    assert [(one.text.partition(" are")[0], one.lost) for one in table.contradictions] == [
        (f"names of {len(lost)} of {COUNT} symbols", True)
    ]
    assert "" not in table.by_name()


def test_names_before_a_hole_are_read_up_to_the_hole() -> None:
    table, section, _ = _with_holes("6.4", "kallsyms_names", 1)
    start, _ = section.places["kallsyms_names"]
    hole = (-(-start // PAGE_SIZE) + 1) * PAGE_SIZE
    first_lost = table.names.index("")
    assert first_lost % 256
    stream = bytes(section.data[start:hole])
    assert sum(len(_spelled(table.names[i], table.types[i])) for i in range(first_lost)) > len(stream) - 300


def _spelled(name: str, letter: str) -> bytes:
    """A record as the encoder writes it."""
    raw = (letter + name).encode()
    for token in (b"tkvm_", b"Tsys_", b"_handler", b"ops"):
        raw = raw.replace(token, b"#")
    return b"#" * (1 + (len(raw) > 127)) + raw


@pytest.mark.parametrize("number", [0, 3, -1])
@pytest.mark.parametrize("layout", ["5.10", "5.10-addresses", "6.2", "6.4", "6.4-addresses", "7.0"])
def test_addresses_around_a_lost_page_are_read(layout: str, number: int) -> None:
    kind = "kallsyms_addresses" if layout.endswith("addresses") else "kallsyms_offsets"
    table, _, made = _with_holes(layout, kind, number)
    lost = int(table.placeless.sum())
    assert lost == PAGE_SIZE // (8 if layout.endswith("addresses") else 4)
    assert table.names == tuple(name[1:] for _, name in made)
    kept = ~table.placeless
    assert table.addresses[kept].tolist() == [a for (a, _), known in zip(made, kept.tolist(), strict=True) if known]
    assert [(one.text.partition(" are")[0], one.lost) for one in table.contradictions] == [
        (f"addresses of {lost} of {COUNT} symbols", True)
    ]
    gone = table.names[int(np.flatnonzero(table.placeless)[5])]
    assert gone not in table.by_name()


@pytest.mark.parametrize("layout", ["6.2", "6.4", "7.0"])
def test_a_lost_page_of_the_order_of_names_is_no_contradiction(layout: str) -> None:
    table, _, made = _with_holes(layout, "kallsyms_seqs_of_names", 2)
    assert table.sequence is not None
    lost = int((table.sequence < 0).sum())
    assert lost in {PAGE_SIZE // 3 + 1, PAGE_SIZE // 3 + 2}
    assert [one.lost for one in table.contradictions] == [True]
    assert table.names == tuple(name[1:] for _, name in made)
    known = [table.names[at] for at in table.sequence.tolist() if at >= 0]
    assert known == sorted(known)


def test_a_table_of_which_most_is_lost_is_refused() -> None:
    made = symbols(COUNT)
    for name in ("kallsyms_names", "kallsyms_offsets"):
        section = encode(made, "6.4")
        start, end = section.places[name]
        low = start - start % PAGE_SIZE + PAGE_SIZE
        section.data[low : end - end % PAGE_SIZE] = bytes(end - end % PAGE_SIZE - low)
        assert search_kallsyms(section.data).tables == ()


@given(st.sampled_from(["5.10", "6.2", "6.4", "7.0"]), st.sets(st.integers(0, 40), max_size=6))
@settings(max_examples=30, deadline=None)
def test_whatever_pages_are_lost_nothing_false_is_read(layout: str, lost: set[int]) -> None:
    made = symbols(COUNT)
    section = encode(made, layout)
    for page in lost:
        at = page * PAGE_SIZE
        section.data[at : at + PAGE_SIZE] = bytes(len(section.data[at : at + PAGE_SIZE]))
    for found in search_kallsyms(section.data, VirtAddr(KERNEL)).tables:
        table = found.rebased(VirtAddr(KERNEL)) if found.base_lost else found
        assert len(table.names) == COUNT
        for position, (address, name) in enumerate(made):
            assert table.names[position] in {"", name[1:]}
            assert table.placeless[position] or int(table.addresses[position]) == address
        assert all(one.lost for one in table.contradictions)


def _without(layout: str, *tables: str, count: int = COUNT) -> tuple[Section, list[tuple[int, str]]]:
    """A section without every page that touches one of its tables."""
    made = symbols(count)
    if layout.endswith("percpu"):
        made = [(0, "Airq_stack"), *((0x100 + 8 * i, f"Avariable_{i}") for i in range(2000)), *made]
    section = encode(made, layout)
    for table in tables:
        start, end = section.places[table]
        low, high = start & -PAGE_SIZE, -(-end // PAGE_SIZE) * PAGE_SIZE
        section.data[low:high] = bytes(high - low)
    return section, made


def _agrees(table: KallsymsTable, made: list[tuple[int, str]]) -> None:
    """Whatever the table has is what was encoded, and most is there."""
    assert len(table.names) == len(made)
    for position, (address, name) in enumerate(made):
        assert table.names[position] in {"", name[1:]}
        assert table.placeless[position] or int(table.addresses[position]) == address
    assert table.names.count("") + int(table.placeless.sum()) < len(made) // 4


@pytest.mark.parametrize("layout", ["5.10", "5.10-addresses", "5.10-percpu", "6.2", "6.4", "6.4-percpu", "7.0"])
def test_without_their_number_the_names_are_counted(layout: str) -> None:
    section, made = _without(layout, "kallsyms_num_syms")
    (table,) = search_kallsyms(section.data, VirtAddr(KERNEL)).tables
    assert "kallsyms_num_syms is lost: the names were counted" in [one.text for one in table.contradictions]
    if table.base_lost:
        assert layout in {"5.10", "5.10-percpu", "6.2"}
        table = table.rebased(VirtAddr(KERNEL))
    _agrees(table, made)
    assert all(one.lost for one in table.contradictions)


@pytest.mark.parametrize("layout", ["6.4", "6.4-percpu"])
def test_without_its_base_a_table_can_be_placed_by_who_knows_it(layout: str) -> None:
    section, made = _without(layout, "kallsyms_relative_base")
    (table,) = search_kallsyms(section.data, VirtAddr(KERNEL)).tables
    assert table.base_lost
    assert not table.anchored
    assert table.relative_base is None
    assert "kallsyms_relative_base is lost" in [one.text for one in table.contradictions if one.lost]
    placed = table.rebased(VirtAddr(KERNEL))
    assert (placed.base_lost, placed.anchored, placed.relative_base) == (False, True, KERNEL)
    _agrees(placed, made)
    kept = placed.addresses[~placed.placeless]
    assert [a for a, _ in made if a < KERNEL] == kept[kept < KERNEL].tolist()


def test_names_without_addresses_do_not_hide_others() -> None:
    """A number beside the right one, by one too small: the names end within 8 bytes of it, but no addresses fit."""
    made = symbols(600)
    made[-1] = (made[-1][0], "Tx")
    section = encode(made, "5.10")
    start, _ = section.places["kallsyms_names"]
    section.data[start - 4 : start] = struct.pack("<I", len(made) - 1)
    (table,) = search_kallsyms(section.data).tables
    assert table.names == tuple(name[1:] for _, name in made)


@pytest.mark.parametrize("length", range(1, 9))
def test_the_end_of_the_last_name_and_what_pads_it_are_no_number_of_symbols(length: int) -> None:
    """The code of the token ``tkvm_`` is 1, and a zero behind it might be a record without codes, at offset 0."""
    made = [(KERNEL + 64 * (i // 2), f"Tname_{i}") for i in range(20)]
    made += [(KERNEL + 0x1000, "T" + "x" * length), (KERNEL + 0x1100, "Tmy_tkvm_")]
    (table,) = search_kallsyms(encode(made, "6.4", lead=64).data).tables
    assert table.names == tuple(name[1:] for _, name in made)


def test_of_several_reasons_the_first_is_told() -> None:
    section = encode(symbols(600), "5.10")
    start, end = section.places["kallsyms_offsets"]
    section.data[start:end] = np.random.default_rng(1).bytes(end - start)
    assert "no table of addresses in order" in search_kallsyms(section.data).rejected[0].rejected
    places = section.places
    hint = NamesHint(*(places[f"kallsyms_{name}"][0] for name in NamesHint._fields))
    with pytest.raises(DecodeError, match="no table of addresses in order"):
        decode_kallsyms(section.data, find_token_tables(section.data)[0], hint=hint)


def test_without_markers_names_are_walked_where_a_hint_says() -> None:
    section, made = _without("6.2", "kallsyms_markers", count=3 * COUNT)
    hint = NamesHint(*(section.places[f"kallsyms_{name}"][0] for name in NamesHint._fields))
    candidate = find_token_tables(section.data)[0]
    table = decode_kallsyms(section.data, candidate, hint=hint)
    _agrees(table, made)
    assert table.ranges["kallsyms_markers"] == section.places["kallsyms_markers"]
    assert table.ranges["kallsyms_seqs_of_names"] == section.places["kallsyms_seqs_of_names"]
    assert "kallsyms_markers is lost: the names were walked" in [one.text for one in table.contradictions if one.lost]
    with pytest.raises(DecodeError):
        decode_kallsyms(section.data, candidate)
    with pytest.raises(DecodeError):
        decode_kallsyms(section.data, candidate, hint=hint._replace(names=hint.names + 1))
