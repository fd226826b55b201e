from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.report import Region
from hypervigil.report.memory_map import LINES, WIDTH, draw
from tests.report.exhibits import HOOK
from tests.report.reports import memory_map

REGIONS = st.lists(
    st.builds(
        Region,
        start=st.integers(-(2**70), 2**70),
        end=st.integers(-(2**70), 2**70),
        owner=st.text(max_size=8),
        kind=st.sampled_from("abc"),
    ),
    max_size=20,
)


def region(start: int, pages: int, owner: str = "kvm", kind: str = "text") -> Region:
    return Region(start=start, end=start + pages * 4096, owner=owner, kind=kind)


def test_regions_stand_in_the_order_of_their_addresses() -> None:
    picture = draw(reversed(memory_map()), ())
    starts = [block.region.start for block in picture.blocks]
    assert starts == sorted(starts)
    assert len(starts) == len(memory_map())


def test_a_larger_region_is_wider_but_not_by_its_share() -> None:
    small, large = draw([region(0, 1, "x"), region(1 << 20, 1024, "x")], ()).blocks
    assert small.width < large.width < 1024 * small.width


def test_a_region_s_width_is_by_its_own_size_wherever_it_is() -> None:
    widths = {draw([region(start, 8, "x")], ()).blocks[0].width for start in (0, 1 << 30, 0xFFFF_FFFF_8100_0000)}
    assert len(widths) == 1


def test_a_name_is_shown_whole_or_not_at_all() -> None:
    for length in range(1, 60):
        (block,) = draw([region(0, 1, "n" * length)], ()).blocks
        assert block.label in {"", "n" * length}
        assert (block.label == "") == (length > 24)


def test_a_distance_of_a_gibibyte_starts_a_line_and_a_page_less_does_not() -> None:
    near = draw([region(0, 1), region((1 << 30), 1)], ()).blocks
    apart = draw([region(0, 1), region((1 << 30) + 4096, 1)], ()).blocks
    assert near[0].y == near[1].y
    assert apart[0].y < apart[1].y
    assert apart[1].starts_line


def test_a_full_line_wraps_inside_the_picture() -> None:
    picture = draw([region(at * 4096, 1, "x") for at in range(200)], ())
    assert all(block.x + block.width <= WIDTH for block in picture.blocks)
    assert len({block.y for block in picture.blocks}) > 1
    assert max(block.y for block in picture.blocks) < picture.height


def test_the_region_that_holds_an_address_is_marked_and_half_open() -> None:
    picture = draw([region(0x1000, 1), region(0x2000, 1)], [0x2000, 0x1000 - 1, 0x3000])
    assert [block.marked for block in picture.blocks] == [False, True]
    assert picture.outside == 2


def test_a_violation_on_a_page_without_owner_is_marked() -> None:
    (marked,) = [block for block in draw(memory_map(), [HOOK]).blocks if block.marked]
    assert marked.region.kind == "no owner"


def test_a_region_has_room_for_its_name() -> None:
    (block,) = draw([region(0, 1, "nf_conntrack")], ()).blocks
    assert block.label == "nf_conntrack"
    assert draw([region(0, 1, "")], ()).blocks[0].label == "no owner"


def test_a_very_long_name_is_left_out_whole_where_it_does_not_fit() -> None:
    small, large = draw([region(0, 1, "a" * 30), region(1 << 31, 1 << 24, "a" * 30)], ()).blocks
    assert small.label == ""
    assert large.label == "a" * 30


def test_what_is_not_drawn_is_counted() -> None:
    picture = draw([region(at << 32, 1) for at in range(LINES + 7)], ())
    assert len(picture.blocks) == LINES
    assert picture.hidden == 7


def test_equal_kinds_share_a_swatch() -> None:
    picture = draw([region(0, 1, kind="b"), region(4096, 1, kind="a"), region(8192, 1, kind="b")], ())
    first, second, third = (block.swatch for block in picture.blocks)
    assert first == third != second
    assert dict(picture.kinds) == {"a": second, "b": first}


def test_no_regions_give_an_empty_picture() -> None:
    assert draw((), [1]).blocks == ()


@given(REGIONS, st.lists(st.integers(-(2**70), 2**70), max_size=5))
def test_any_regions_can_be_drawn(regions: list[Region], addresses: list[int]) -> None:
    picture = draw(regions, addresses)
    assert len(picture.blocks) + picture.hidden == len(regions)
    assert all(block.width > 0 and block.x + block.width <= WIDTH for block in picture.blocks)
