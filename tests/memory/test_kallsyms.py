import pytest

from hypervigil.core.errors import MissingDescription
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.decode.kallsyms import KallsymsTable, search_kallsyms
from hypervigil.memory import kallsyms as module
from hypervigil.memory.kallsyms import completed, symbols_of
from tests.decode.kallsyms_encoder import KERNEL, Section, encode, symbols

COUNT = 6000


@pytest.mark.parametrize("layout", ["5.10", "6.4"])
def test_symbols_of_a_table_with_a_lost_page_know_what_they_lack(layout: str) -> None:
    made = symbols(6000)
    section = encode(made, layout)
    start, _ = section.places["kallsyms_offsets"]
    at = (start // PAGE_SIZE + 1) * PAGE_SIZE
    section.data[at : at + PAGE_SIZE] = bytes(PAGE_SIZE)
    (table,) = search_kallsyms(section.data).tables
    found = symbols_of(table, "here")
    lost = (at - start) // 4
    assert len(found) == len(made) - PAGE_SIZE // 4
    assert found.address(made[lost - 1][1][1:]) == made[lost - 1][0]
    with pytest.raises(MissingDescription, match="is lost"):
        found.find(made[lost][1][1:])
    edges = (made[lost - 1][0], made[lost + PAGE_SIZE // 4][0])
    assert found.losses is not None
    assert found.losses.ranges == (edges,)
    assert [found.doubtful(edge + step) for edge, step in zip(edges, (-1, 1), strict=True)] == [False, False]
    assert all(found.doubtful(edge) for edge in edges)
    assert not found.may_be_lost("no_such_symbol")


@pytest.mark.parametrize("layout", ["5.10", "6.4"])
def test_a_symbol_out_of_order_is_where_its_neighbours_are_and_not_where_it_says(layout: str) -> None:
    made = symbols(COUNT)
    section = encode(made, layout)
    at = section.places["kallsyms_offsets"][0] + 4 * 300
    forged = made[500][0] + 4
    section.data[at : at + 4] = (int.from_bytes(section.data[at : at + 4], "little") + forged - made[300][0]).to_bytes(
        4, "little"
    )
    (table,) = search_kallsyms(section.data).tables
    found = symbols_of(table, "here")
    assert [one.lost for one in table.contradictions] == [False]
    with pytest.raises(MissingDescription, match="is lost"):
        found.find(made[300][1][1:])
    assert (found.find("no_such_symbol"), found.find(made[299][1][1:])) == (None, made[299][0])
    assert found.exactly(forged) == []
    assert (found.doubtful(forged), found.doubtful(made[300][0])) == (False, True)


TOP_TABLE = KERNEL + 16 * 3000 + 8
ROWS = sorted(
    [*symbols(COUNT), (TOP_TABLE, "Dinit_top_pgt"), (KERNEL, "T_stext"), (KERNEL + 16 * 3500, "dinit_uts_ns")]
)


def without(table: str, number: int = 0, rows: list[tuple[int, str]] = ROWS) -> KallsymsTable:
    """A table of which a page is lost that a table begins in, or a later one."""
    section: Section = encode(rows, "6.4")
    at = (section.places[table][0] & -PAGE_SIZE) + number * PAGE_SIZE
    section.data[at : at + PAGE_SIZE] = bytes(PAGE_SIZE)
    (found,) = search_kallsyms(section.data).tables
    return found


def test_a_lost_base_is_told_by_the_top_page_table() -> None:
    table = completed(without("kallsyms_relative_base"), VirtAddr(TOP_TABLE), {"_stext": VirtAddr(KERNEL)})
    assert table.anchored
    assert symbols_of(table, "here").address("init_uts_ns") == KERNEL + 16 * 3500
    assert table.relative_base == KERNEL


@pytest.mark.parametrize("name", ["_stext", "init_uts_ns"])
def test_a_lost_base_of_which_two_sources_differ_stays_lost(name: str) -> None:
    table = without("kallsyms_relative_base")
    with pytest.raises(MissingDescription, match=f"by the page tables {name} is not where VMCOREINFO says"):
        completed(table, VirtAddr(TOP_TABLE), {name: VirtAddr(KERNEL + 8)})


def test_a_lost_base_without_the_top_page_table_stays_lost() -> None:
    table = without("kallsyms_relative_base", rows=[row for row in ROWS if row[0] != TOP_TABLE])
    with pytest.raises(MissingDescription, match=r"of \d,\d+ names none is the top page table's"):
        completed(table, VirtAddr(TOP_TABLE), {})


def test_a_lost_name_is_told_by_vmcoreinfo_where_a_symbol_without_one_is() -> None:
    table = without("kallsyms_names")
    position = [name for _, name in ROWS].index("T_stext")
    assert not table.names[position]
    found = completed(table, VirtAddr(TOP_TABLE), {"_stext": VirtAddr(KERNEL), "init_uts_ns": VirtAddr(KERNEL)})
    assert symbols_of(found, "here").address("_stext") == KERNEL
    assert found.names.count("_stext") == 1
    assert found.names.count("init_uts_ns") == 1
    assert found.names.count("") == table.names.count("") - 1


def test_a_name_is_given_to_no_symbol_that_has_one_and_to_none_elsewhere() -> None:
    table = without("kallsyms_names")
    for place in (KERNEL + 1, KERNEL + 16 * 3500, 0):
        assert completed(table, VirtAddr(TOP_TABLE), {"_stext": VirtAddr(place)}).names == table.names


def test_of_a_whole_table_nothing_is_told() -> None:
    (table,) = search_kallsyms(encode(ROWS, "6.4").data).tables
    assert completed(table, VirtAddr(0), {"_stext": VirtAddr(0)}) is table


def test_a_whole_table_has_no_losses() -> None:
    (table,) = search_kallsyms(encode(ROWS, "6.4").data).tables
    found = symbols_of(table, "here")
    assert found.losses is None
    assert len(found) == len(ROWS)


@pytest.mark.parametrize(
    ("first", "last", "low", "high"),
    [
        (0, 1, 0, KERNEL + 16 * (1024 - 1024 % 7)),
        (5, 6, KERNEL + 16 * (5 * 1024 - 1 - (5 * 1024 - 1) % 7), (1 << 64) - 1),
    ],
)
def test_addresses_that_are_lost_may_be_up_to_their_neighbours_or_anywhere(
    first: int, last: int, low: int, high: int
) -> None:
    section = encode(symbols(COUNT), "5.10")
    start, _ = section.places["kallsyms_offsets"]
    assert start % PAGE_SIZE == 0
    section.data[start + first * PAGE_SIZE : start + last * PAGE_SIZE] = bytes((last - first) * PAGE_SIZE)
    (table,) = search_kallsyms(section.data).tables
    table = table.rebased(VirtAddr(KERNEL)) if table.base_lost else table
    losses = symbols_of(table, "here").losses
    assert losses is not None
    assert losses.ranges == ((low, high),)


@pytest.mark.parametrize(
    ("ranges", "merged"),
    [
        ([(5, 9), (0, 2)], ((0, 2), (5, 9))),
        ([(0, 5), (3, 4)], ((0, 5),)),
        ([(0, 5), (5, 9)], ((0, 9),)),
        ([(0, 9), (2, 3), (9, 12), (14, 15)], ((0, 12), (14, 15))),
        ([], ()),
    ],
)
def test_ranges_that_touch_are_one(ranges: list[tuple[int, int]], merged: tuple[tuple[int, int], ...]) -> None:
    assert module._merged(ranges) == merged
