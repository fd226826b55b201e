import struct

import pytest

from hypervigil.core.errors import EvidenceError, MissingDescription
from hypervigil.core.units import PAGE_SIZE
from hypervigil.linux.vmap import VmapArea, vmap_areas
from tests.linux.host_builder import JIT, host
from tests.linux.kernel_builder import VMALLOC, KernelImage

ALL = (VMALLOC, *(JIT + 2 * index * PAGE_SIZE for index in range(3)))


def areas(image: KernelImage) -> list[int]:
    found = vmap_areas(image.open())
    assert found.gaps == ()
    return [area.start for area in found.items]


def test_areas_are_those_of_every_node_sorted() -> None:
    image = host()
    assert areas(image) == sorted(ALL)
    found = vmap_areas(image.open()).items
    assert all((area.end - area.start, area.reserved) == (2 * PAGE_SIZE, False) for area in found)


def test_before_6_9_there_is_one_list() -> None:
    image = host()
    area = image.object("vmap_area", va_start=VMALLOC, va_end=VMALLOC + PAGE_SIZE)
    image.link(image.pointers("vmap_area_list", 0, 0), area + image.types.offset("vmap_area", "list"))
    image.put_tables()
    assert areas(image) == [VMALLOC]


def test_every_node_is_asked() -> None:
    image = host()
    size = image.types.size("vmap_node")
    nodes = image.heap(bytes(3 * size))
    for index in range(3):
        start = VMALLOC + (index << 20)
        area = image.object("vmap_area", va_start=start, va_end=start + PAGE_SIZE)
        head = nodes + index * size + image.types.offset("vmap_node", "busy.head")
        image.link(head, area + image.types.offset("vmap_area", "list"))
    image.poke(image.symbols["vmap_nodes"][0], struct.pack("<Q", nodes))
    image.poke(image.symbols["nr_vmap_nodes"][0], struct.pack("<I", 3))
    assert areas(image) == [VMALLOC, VMALLOC + (1 << 20), VMALLOC + (2 << 20)]


@pytest.mark.parametrize("count", [0, 4097, 0xFFFF_FFFF])
def test_an_impossible_number_of_nodes_is_refused(count: int) -> None:
    image = host()
    image.poke(image.symbols["nr_vmap_nodes"][0], struct.pack("<I", count))
    with pytest.raises(MissingDescription, match=f"nr_vmap_nodes is {count}"):
        vmap_areas(image.open())


def test_without_heads_nothing_is_known() -> None:
    image = host()
    image.symbols.pop("vmap_nodes")
    image.put_tables()
    with pytest.raises(EvidenceError):
        vmap_areas(image.open())


def test_a_list_that_is_broken_is_a_gap() -> None:
    image = host()
    head = image.at["vmap node"] + image.types.offset("vmap_node", "busy.head")
    image.poke(image.word(head), struct.pack("<Q", image.word(head)))
    found = vmap_areas(image.open())
    assert len(found.items) == 1
    assert [gap.what for gap in found.gaps] == ["vmap areas"]


@pytest.mark.parametrize(
    ("flags", "pages", "reserved"), [(2, 0, True), (3, 0, True), (2, 0x1000, False), (1, 0, False), (4, 0, False)]
)
def test_an_area_without_pages_that_was_allocated_is_reserved(flags: int, pages: int, reserved: bool) -> None:  # noqa: FBT001 - a case
    image = host()
    structure = image.object("vm_struct", flags=flags, pages=pages)
    image.member("vmap_area", image.at["area"], "vm", structure)
    assert [a.reserved for a in vmap_areas(image.open()).items if a.start == JIT] == [reserved]


@pytest.mark.parametrize(
    ("start", "end", "holds"),
    [(0, 1, False), (0, 100, False), (90, 101, True), (100, 200, True), (5000, 5999, True), (6000, 9000, False)],
)
def test_an_area_must_be_mapped_but_for_its_guard_page(start: int, end: int, holds: bool) -> None:  # noqa: FBT001 - a case
    assert VmapArea(100, 6000 + PAGE_SIZE).holds(start, end) == holds
    assert not VmapArea(100, 6000 + PAGE_SIZE, reserved=True).holds(start, end)
