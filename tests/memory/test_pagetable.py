import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervigil.core.errors import MissingMemory
from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.memory import pagetable
from hypervigil.memory.pagetable import Repeat, Sweep, sweep, translate
from tests.memory.page_tables import FRAME, LARGE, NO_EXECUTE, PRESENT, USER, WRITABLE, Image, virtual

TEXT = 0xFFFF_FFFF_8100_0000
MIB2, GIB = 1 << 21, 1 << 30


def starts(found: Sweep) -> list[int]:
    return [int(start) for start in found.leaves.start]


@pytest.mark.parametrize("levels", [4, 5])
def test_an_address_is_followed_to_its_page(levels: int) -> None:
    image = Image(levels=levels)
    frame = image.page(TEXT)
    found = translate(image.raw(), image.root, levels, VirtAddr(TEXT + 0x123))
    assert (found.address, found.rest) == (frame + 0x123, PAGE_SIZE - 0x123)
    assert (found.slot, found.entry) == (image.slot(TEXT), frame | PRESENT | WRITABLE | NO_EXECUTE)


@pytest.mark.parametrize("size", [MIB2, GIB])
def test_a_large_page_is_one_leaf(size: int) -> None:
    image = Image()
    image.map(TEXT & -size, 3 * size, size=size)
    found = translate(image.raw(), image.root, 4, VirtAddr((TEXT & -size) + 0x12345))
    assert (found.address, found.rest) == (3 * size + 0x12345, size - 0x12345)


def test_bits_of_a_large_entry_below_its_frame_are_no_address() -> None:
    image = Image()
    image.map(TEXT, 0, size=MIB2)
    place = image.slot(TEXT, 2)
    image.put(place, image.get(place) | 0x1F_F000)  # the attribute bit of a large page is bit 12
    assert translate(image.raw(), image.root, 4, VirtAddr(TEXT)).address == 0
    assert sweep(image.raw(), image.root, 4, executable_only=False).leaves.frame.tolist() == [0]


def test_the_size_bit_means_nothing_above_1_gib() -> None:
    image = Image()
    frame = image.page(TEXT, executable=True)
    image.put(image.slot(TEXT, 4), image.get(image.slot(TEXT, 4)) | LARGE)
    assert translate(image.raw(), image.root, 4, VirtAddr(TEXT)).address == frame
    assert starts(sweep(image.raw(), image.root, 4)) == [TEXT]


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_what_is_not_mapped_is_missing_by_its_virtual_address(level: int) -> None:
    image = Image()
    image.page(TEXT)
    image.put(image.slot(TEXT, level), image.get(image.slot(TEXT, level)) & ~PRESENT)
    with pytest.raises(MissingMemory, match=f"virtual {TEXT:#x}, 1 bytes: not mapped at level {level}"):
        translate(image.raw(), image.root, 4, VirtAddr(TEXT))
    assert sweep(image.raw(), image.root, 4, executable_only=False).leaves.start.size == 0


def test_a_table_outside_of_the_image_is_missing_by_its_physical_address() -> None:
    image = Image()
    image.page(TEXT)
    image.put(image.slot(TEXT, 2), 0x7000_0000 | PRESENT)
    with pytest.raises(MissingMemory) as fault:
        translate(image.raw(), image.root, 4, VirtAddr(TEXT))
    assert (fault.value.virtual, fault.value.address & -PAGE_SIZE) == (False, 0x7000_0000)


@pytest.mark.parametrize("levels", [4, 5])
def test_leaves_of_all_sizes_are_found_sorted_with_canonical_addresses(levels: int) -> None:
    image = Image(levels=levels)
    low, middle, high = virtual(*[0] * (levels - 1), 5), 0xFFFF_8880_4000_0000, TEXT
    image.map(high, 0x1000, executable=True)
    image.map(middle, GIB, size=GIB, executable=True)
    image.map(high + MIB2, MIB2, size=MIB2, executable=True)
    image.map(low, 0x3000, executable=True)
    found = sweep(image.raw(), image.root, levels)
    assert starts(found) == [low, middle, high, high + MIB2]
    assert found.leaves.size.tolist() == [PAGE_SIZE, GIB, PAGE_SIZE, MIB2]
    assert found.leaves.frame.tolist() == [0x3000, GIB, 0x1000, MIB2]
    assert found.leaves.table.tolist() == [
        image.slot(low),
        image.slot(middle, 3),
        image.slot(high),
        image.slot(high + MIB2, 2),
    ]
    assert len(found.leaves) == 4
    assert found.gaps == ()


@pytest.mark.parametrize("levels", [4, 5])
def test_only_the_asked_range_is_swept(levels: int) -> None:
    image = Image(levels=levels)
    half, user = 0xFFFF_8880_0000_0000, 0x7FFF_FFFF_F000
    for at in (TEXT, TEXT + MIB2, half, user):
        image.map(at, 0x1000, executable=True)
    assert starts(sweep(image.raw(), image.root, levels, low=TEXT + MIB2)) == [TEXT + MIB2]
    assert starts(sweep(image.raw(), image.root, levels, low=TEXT + 1)) == [TEXT, TEXT + MIB2]
    assert starts(sweep(image.raw(), image.root, levels, low=1 << 63)) == [half, TEXT, TEXT + MIB2]
    assert starts(sweep(image.raw(), image.root, levels)) == [user, half, TEXT, TEXT + MIB2]


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_no_execute_at_any_level_counts(level: int) -> None:
    image = Image()
    image.map(TEXT, 0x1000, executable=True)
    image.put(image.slot(TEXT, level), image.get(image.slot(TEXT, level)) | NO_EXECUTE)
    assert starts(sweep(image.raw(), image.root, 4)) == []
    assert starts(sweep(image.raw(), image.root, 4, executable_only=False)) == [TEXT]


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize("right", [WRITABLE, USER])
def test_a_right_must_be_given_at_every_level(level: int, right: int) -> None:
    image = Image()
    image.map(TEXT, 0x1000, executable=True, user=True)
    whole = sweep(image.raw(), image.root, 4).leaves
    assert (whole.writable.tolist(), whole.user.tolist()) == ([True], [True])
    image.put(image.slot(TEXT, level), image.get(image.slot(TEXT, level)) & ~right)
    found = sweep(image.raw(), image.root, 4).leaves
    assert (found.writable.tolist(), found.user.tolist()) == ([right != WRITABLE], [right != USER])


def test_a_table_that_is_not_there_is_a_gap_with_both_addresses() -> None:
    image = Image()
    image.map(TEXT, 0x1000, executable=True)
    image.put(image.slot(TEXT + MIB2, 2), 0x7000_0000 | PRESENT)
    found = sweep(image.raw(), image.root, 4)
    assert starts(found) == [TEXT]
    assert [str(gap) for gap in found.gaps] == [
        f"page table at physical 0x70000000 for {TEXT + MIB2:#x}: not in the image"
    ]


def test_without_a_top_table_nothing_is_found_and_that_is_said() -> None:
    found = sweep(Image().raw(), PhysAddr(0x7000_0000), 4)
    assert (len(found.leaves), len(found.gaps)) == (0, 1)


def test_a_zero_table_is_empty_where_zero_is_zero_and_noted_where_it_may_be_missing() -> None:
    image = Image()
    image.map(TEXT, 0x1000, executable=True)
    image.put(image.slot(TEXT), 0)
    assert sweep(image.raw(), image.root, 4).empty_tables == ((TEXT, MIB2),)
    assert sweep(image.lime(), image.root, 4).empty_tables == ()


def test_a_table_that_refers_to_itself_is_not_walked_and_told() -> None:
    image = Image()
    image.map(TEXT, 0x1000, executable=True)
    slot = image.root + 8 * 510
    image.put(slot, image.root | PRESENT | WRITABLE)
    found = sweep(image.raw(), image.root, 4)
    assert starts(found) == [TEXT]
    assert found.repeats == (Repeat(VirtAddr(0xFFFF_FF00 << 32), image.root, PhysAddr(slot)),)
    assert [str(gap) for gap in found.gaps] == [
        "1 entries of page tables: they lead where others do: the tables refer to themselves or are forged"
    ]


@pytest.mark.parametrize("level", [2, 3])
def test_a_table_that_stands_above_itself_is_not_walked_and_told(level: int) -> None:
    image = Image()
    image.map(TEXT, 0x1000, executable=True)
    above = image.get(image.slot(TEXT, 4)) & FRAME
    slot = image.slot(TEXT, level) + 8
    image.put(slot, above | PRESENT)
    found = sweep(image.raw(), image.root, 4)
    assert [(one.table, one.slot) for one in found.repeats] == [(above, slot)]
    assert starts(found) == [TEXT]


@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_table_to_which_two_entries_lead_is_walked_once_and_told(level: int) -> None:
    image = Image()
    image.map(TEXT, 0x1000, executable=True)
    other = 0xFFFF_A000_0000_0000
    table = image.get(image.slot(TEXT, level))
    slot = image.slot(other, level)
    image.put(slot, table)
    found = sweep(image.raw(), image.root, 4)
    assert [(one.start, one.table, one.slot) for one in found.repeats] == [
        (TEXT & -(512 << 12 << 9 * (level - 2)), table & FRAME, image.slot(TEXT, level))
    ]
    assert starts(found) == [other | TEXT & (512 << 12 << 9 * (level - 2)) - 1]
    assert len(found.gaps) == 1


def test_two_entries_of_one_table_that_share_another_are_told_too() -> None:
    image = Image()
    image.map(TEXT, 0x1000, executable=True)
    slot = image.slot(TEXT, 2)
    image.put(slot + 8, image.get(slot))
    image.put(slot + 16, image.get(slot))
    found = sweep(image.raw(), image.root, 4)
    assert [(one.start, one.slot) for one in found.repeats] == [
        (TEXT + MIB2, slot + 8),
        (TEXT + 2 * MIB2, slot + 16),
    ]
    assert starts(found) == [TEXT]


def test_the_stacks_of_espfix_share_their_tables_lawfully() -> None:
    image = Image()
    stack = 0xFFFF_FF00_0000_0000
    image.map(stack, 0x1000)
    for level in (2, 3):
        for index in range(1, 4):
            image.put(image.slot(stack, level) + 8 * index, image.get(image.slot(stack, level)))
    found = sweep(image.raw(), image.root, 4)
    assert (found.repeats, found.gaps, found.tables) == ((), (), 4)
    image.put(image.slot(stack, 3) + 8 * 4, image.root | PRESENT)
    image.put(image.slot(TEXT, 3), image.get(image.slot(stack, 3)))
    found = sweep(image.raw(), image.root, 4)
    assert [one.start for one in found.repeats] == [stack + 4 * GIB, TEXT & -GIB]


def test_a_repeat_in_the_user_half_is_told_by_its_address_there() -> None:
    image = Image()
    image.map(0x1000, 0x1000, executable=True)
    slot = image.slot(0x1000, 2)
    image.put(slot + 8, image.get(slot))
    found = sweep(image.raw(), image.root, 4)
    assert [(one.start, one.slot) for one in found.repeats] == [(MIB2, slot + 8)]


def test_pages_of_all_sizes_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagetable, "_MAX_LEAVES", 3)
    image = Image()
    for at in (TEXT, TEXT + MIB2):
        image.map(at, 0, size=MIB2, executable=True)
    for at in (TEXT + 4 * MIB2, TEXT + 4 * MIB2 + 0x1000):
        image.map(at, 0x1000, executable=True)
    found = sweep(image.raw(), image.root, 4)
    assert starts(found) == [TEXT, TEXT + MIB2, TEXT + 4 * MIB2]
    assert [gap.what for gap in found.gaps] == ["1 pages"]


def test_no_more_repeats_are_told_than_one_can_read() -> None:
    image = Image()
    for index in range(512):
        image.put(image.root + 8 * index, image.root | PRESENT)
    found = sweep(image.raw(), image.root, 4)
    assert (len(found.repeats), found.tables) == (64, 1)
    assert [gap.what for gap in found.gaps] == ["512 entries of page tables"]


def test_tables_that_multiply_are_cut_off_with_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagetable, "_MAX_TABLES", 600)
    image = Image(1 << 23)
    for index in range(2):
        table = image.frame()
        image.put(image.root + 8 * index, table | PRESENT)
        for below in range(512):
            image.put(table + 8 * below, image.frame() | PRESENT)
    found = sweep(image.raw(), image.root, 4)
    assert found.tables == 600
    assert [str(gap) for gap in found.gaps] == [
        "427 page tables: more than 600 tables: the tables refer to themselves or are forged"
    ]


def test_leaves_that_multiply_are_cut_off_with_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagetable, "_MAX_LEAVES", 1000)
    image = Image()
    for index in range(4):
        table = image.frame()
        image.put(image.root + 8 * index, table | PRESENT)
        for below in range(512):
            image.put(table + 8 * below, PRESENT | LARGE)
    found = sweep(image.raw(), image.root, 4, low=0)
    assert len(found.leaves) == 1000
    assert [gap.what for gap in found.gaps] == [f"{4 * 512 - 1000} pages"]


PLACES = st.tuples(
    st.sampled_from([0, 1, 255, 256, 511]),
    st.sampled_from([0, 510]),
    st.integers(0, 511),
    st.integers(0, 511),
)


@settings(max_examples=50)
@given(st.dictionaries(PLACES, st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=12))
def test_a_sweep_finds_exactly_what_single_walks_find(wanted: dict[tuple[int, ...], tuple[bool, bool, bool]]) -> None:
    image = Image(1 << 19)
    for indices, (writable, executable, user) in wanted.items():
        image.map(virtual(*indices), 0x5000, writable=writable, executable=executable, user=user)
    found = sweep(image.raw(), image.root, 4, low=0, executable_only=False)
    rows = zip(starts(found), found.leaves.writable.tolist(), found.leaves.user.tolist(), strict=True)
    assert list(rows) == sorted((virtual(*at), writable, user) for at, (writable, _, user) in wanted.items())
    for start, slot in zip(starts(found), found.leaves.table.tolist(), strict=True):
        assert translate(image.raw(), image.root, 4, VirtAddr(start)).slot == slot
    may_run = sweep(image.raw(), image.root, 4, low=0)
    assert starts(may_run) == sorted(virtual(*at) for at, (_, may, _) in wanted.items() if may)


@settings(max_examples=50)
@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=64), st.integers(0, (1 << 64) - 1), st.sampled_from([4, 5]))
def test_any_tables_are_walked_to_an_end(entries: list[int], address: int, levels: int) -> None:
    image = Image(1 << 15)
    for index, entry in enumerate(entries):
        image.put(8 * (index * 61 % 4096), entry & ~0x7_8000 | 0x1000)
    found = sweep(image.raw(), image.root, levels, low=0, executable_only=False)
    assert np.all(found.leaves.start[1:] > found.leaves.start[:-1])
    try:
        mapped = translate(image.raw(), image.root, levels, VirtAddr(address))
    except MissingMemory:
        return
    assert 0 < mapped.rest <= GIB
