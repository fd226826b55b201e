import struct

import numpy as np
import pytest

from hypervigil.core.errors import DecodeError
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.decode.kallsyms import search_kallsyms
from hypervigil.decode.kallsyms_layout import Body
from hypervigil.decode.kallsyms_tokens import as_bytes
from hypervigil.decode.kallsyms_values import Values, find_values, sequence_faults
from tests.decode.kallsyms_encoder import KERNEL, Section, encode, symbols
from tests.decode.test_kallsyms_layout import LAYOUTS, body

COUNT = 12_000


def values(made: Section, found: Body | None = None) -> Values:
    return find_values(as_bytes(made.data), found or body(made), made.places["kallsyms_token_index"][1])


@pytest.mark.parametrize("count", [300, 511, 512, 513, 2000])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_addresses_are_found_before_and_behind_the_names(layout: str, count: int) -> None:
    made = encode(symbols(count), layout)
    found = body(made)
    where = values(made, found)
    assert where.range == made.places["kallsyms_addresses" if layout.endswith("addresses") else "kallsyms_offsets"]
    assert where.unsorted == ()
    assert (found.sequence or where.sequence) == made.places.get("kallsyms_seqs_of_names")


@pytest.mark.parametrize(
    ("layout", "how"),
    [
        ("6.4", "offsets from a relative base"),
        ("6.4-addresses", "addresses"),
        ("7.0", "offsets from their own place"),
    ],
)
def test_how_the_values_were_recognised_is_said(layout: str, how: str) -> None:
    found = values(encode(symbols(600), layout))
    assert found.how == how
    assert found.place_relative == (layout == "7.0")
    assert (found.base is None) == (layout != "6.4")


def test_absolute_per_cpu_values_are_told_apart() -> None:
    rows = [(0, "Afirst"), (0x1FBC0, "Asecond"), *symbols(600)]
    found = values(encode(rows, "6.4-percpu"))
    assert found.how == "offsets from a relative base, absolute per-CPU values"
    assert found.addresses.tolist() == [address for address, _ in rows]


def test_some_addresses_out_of_order_are_kept_and_named() -> None:
    made = encode(symbols(640), "6.4")
    start = made.places["kallsyms_offsets"][0]
    for position in (100, 200):
        made.data[start + 4 * position : start + 4 * position + 4] = struct.pack("<I", 0)
    assert values(made).unsorted == (100, 200)


def test_too_many_addresses_out_of_order_are_no_table() -> None:
    made = encode(symbols(640), "6.4")
    start, end = made.places["kallsyms_offsets"]
    made.data[start:end] = np.random.default_rng(1).bytes(end - start)
    with pytest.raises(DecodeError, match="no table of addresses in order"):
        values(made)


def test_what_a_sequence_leaves_out_is_counted() -> None:
    numbers = b"".join(n.to_bytes(3, "big") for n in (2, 0, 1, 3))
    assert sequence_faults(as_bytes(numbers), (0, 12), 4) == 0
    assert sequence_faults(as_bytes(numbers[:9] + b"\0\0\1"), (0, 12), 4) == 1
    assert sequence_faults(as_bytes(b"\xff" * 12), (0, 12), 4) == 4


def test_a_sequence_that_leaves_symbols_out_is_no_proof_of_a_layout() -> None:
    made = encode(symbols(640), "7.0")
    start, end = made.places["kallsyms_seqs_of_names"]
    made.data[start:end] = b"\0" * (end - start)
    with pytest.raises(DecodeError, match="no table of addresses in order"):
        values(made)


def test_a_base_below_the_kernel_s_half_is_no_base() -> None:
    made = encode(symbols(640), "6.4")
    start, end = made.places["kallsyms_relative_base"]
    made.data[start:end] = struct.pack("<Q", KERNEL & 0xFFFF_FFFF)
    with pytest.raises(DecodeError, match="no table of addresses in order"):
        values(made)


@pytest.mark.parametrize("count", [COUNT, COUNT + 1])
def test_a_lost_base_is_not_taken_for_offsets_from_their_own_place(count: int) -> None:
    section = encode(symbols(count), "6.4")
    at = section.places["kallsyms_relative_base"][0] & -PAGE_SIZE
    section.data[at : at + PAGE_SIZE] = bytes(PAGE_SIZE)
    (table,) = search_kallsyms(section.data, VirtAddr(KERNEL)).tables
    assert table.base_lost
    section = encode(symbols(count), "7.0")
    end = section.places["kallsyms_offsets"][1]
    at = end & -PAGE_SIZE
    section.data[at : at + PAGE_SIZE] = bytes(PAGE_SIZE)
    (table,) = search_kallsyms(section.data, VirtAddr(KERNEL)).tables
    assert table.layout == "offsets from their own place"


def test_offsets_from_their_own_place_are_never_taken_for_such_from_a_lost_base() -> None:
    made = [(KERNEL + 16 * (i - (i % 600 == 1)), f"Tname_{i}") for i in range(COUNT)]  # few share an address
    section = encode(made, "7.0")
    end = section.places["kallsyms_offsets"][1]
    at = end & -PAGE_SIZE
    section.data[at : at + PAGE_SIZE] = bytes(PAGE_SIZE)
    start, end = section.places["kallsyms_seqs_of_names"]
    section.data[max(start, at + PAGE_SIZE) : end] = b"\xff" * (end - max(start, at + PAGE_SIZE))
    assert search_kallsyms(section.data, VirtAddr(KERNEL)).tables == ()


def test_symbols_may_lie_on_both_sides_of_their_offsets() -> None:
    made = [(address - 8 * COUNT, name) for address, name in symbols(COUNT)]
    section = encode(made, "7.0")
    (table,) = search_kallsyms(section.data, VirtAddr(KERNEL)).tables
    assert table.addresses.tolist() == [address for address, _ in made]
    assert table.contradictions == ()
    assert min(made)[0] < KERNEL < max(made)[0]


def test_a_base_that_somebody_zeroed_is_no_other_layout() -> None:
    section = encode(symbols(701), "6.4")
    start, end = section.places["kallsyms_relative_base"]
    section.data[start:end] = bytes(end - start)
    assert search_kallsyms(section.data, VirtAddr(KERNEL)).tables == ()


def test_a_zero_page_where_a_base_might_be_makes_no_base() -> None:
    section = encode(symbols(COUNT), "6.4-addresses", lead=16 * PAGE_SIZE)
    start, _ = section.places["kallsyms_num_syms"]
    low = (start - 4 * COUNT - 8) & -PAGE_SIZE
    for at in range(low, start - PAGE_SIZE, PAGE_SIZE):
        section.data[at : at + PAGE_SIZE] = b"\1".ljust(PAGE_SIZE, b"\0")
    section.data[start - PAGE_SIZE & -PAGE_SIZE : start] = bytes(start - (start - PAGE_SIZE & -PAGE_SIZE))
    start, end = section.places["kallsyms_addresses"]
    section.data[start:end] = np.random.default_rng(1).bytes(end - start)
    assert search_kallsyms(section.data).tables == ()
