from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.facts import Observed
from hypervigil.core.units import PAGE_SIZE
from hypervigil.linux import lists
from hypervigil.linux.lists import walk_chain, walk_list, walk_tree
from hypervigil.memory.space import AddressSpace
from tests.linux.c_types import words
from tests.memory.page_tables import Image

BASE = 0xFFFF_8880_0010_0000
SIZE = 0x40
COUNT = 12
WILD = 0xFFFF_8880_7000_0000


def node(index: int) -> int:
    return BASE + SIZE * index


class Nodes(Image):
    """A page of nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.page(BASE, b"\x6b" * PAGE_SIZE)

    def ring(self, *indices: int) -> None:
        """Link nodes in a circle, the first as its head."""
        for at, index in enumerate(indices):
            following, before = indices[(at + 1) % len(indices)], indices[at - 1]
            self.poke(node(index), words(node(following), node(before)))

    def walk(self, offset: int = 0) -> Observed[int]:
        return walk_list(self.space(), node(0), offset, "list")


def told(found: Observed[int]) -> str:
    (gap,) = found.gaps
    assert gap.what == "list"
    return gap.why.removeprefix("could not be walked to its end: ")


def test_a_list_is_walked_in_order_from_behind_its_head() -> None:
    image = Nodes()
    image.ring(0, 3, 1, 2)
    assert image.walk(8) == Observed((node(3) - 8, node(1) - 8, node(2) - 8))


def test_an_empty_list_has_nothing() -> None:
    image = Nodes()
    image.ring(0)
    assert image.walk() == Observed(())


def test_a_head_that_is_not_in_the_image_is_a_gap() -> None:
    found = walk_list(Nodes().space(), WILD, 0, "list")
    assert found.items == ()
    assert "0xffff888070000000" in told(found)


@pytest.mark.parametrize(
    ("link", "kept", "why"),
    [
        (node(2), 2, "it turns back to 0xffff888000100080 without reaching its head"),
        (node(1), 2, "it turns back to 0xffff888000100040 without reaching its head"),
        (0, 2, "it leads to 0x0, which is no address of the kernel"),
        (0x7FFF_0000_0000, 2, "it leads to 0x7fff00000000, which is no address of the kernel"),
        (node(4), 2, "its entry at 0xffff888000100100 does not point back"),
        (WILD, 2, "its entry at 0xffff888070000000 does not point back"),
    ],
)
def test_a_list_that_is_led_astray_ends_and_says_where(link: int, kept: int, why: str) -> None:
    image = Nodes()
    image.ring(0, 1, 2, 3, 4)
    image.poke(node(2), words(link))
    found = image.walk()
    assert (found.items, told(found)) == ((node(1), node(2))[:kept], why)


def test_what_lies_behind_an_entry_that_does_not_point_back_is_not_taken() -> None:
    image = Nodes()
    image.ring(0, 1, 2, 3)
    image.poke(node(2) + 8, words(node(3)))
    assert image.walk().items == (node(1),)


def test_a_list_longer_than_any_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_ENTRIES", 3)
    image = Nodes()
    image.ring(0, 1, 2, 3)
    assert image.walk() == Observed((node(1), node(2), node(3)))
    image.ring(0, 1, 2, 3, 4)
    assert len(image.walk().items) == 3
    assert image.walk().gaps


def test_a_lost_page_ends_a_list_with_a_gap() -> None:
    image = Nodes()
    image.page(BASE + PAGE_SIZE, b"\x6b" * PAGE_SIZE)
    far = PAGE_SIZE // SIZE
    image.ring(0, 1, far, 2)
    space = image.space(image.lime(image.physical(BASE + PAGE_SIZE)))
    found = walk_list(space, node(0), 0, "list")
    assert found.items == (node(1),)
    assert "does not point back" in told(found)


def chain(image: Nodes, *indices: int, end: int = 0) -> Observed[int]:
    """Link nodes one behind the other at offset 16, the last to `end`, and walk them."""
    for at, index in enumerate(indices):
        image.poke(node(index) + 16, words(node(indices[at + 1]) if at + 1 < len(indices) else end))
    return walk_chain(image.space(), node(indices[0]), 16, "list")


def test_a_chain_ends_with_nothing() -> None:
    assert chain(Nodes(), 4, 2, 7) == Observed((node(4), node(2), node(7)))
    assert walk_chain(Nodes().space(), 0, 16, "list") == Observed(())


@pytest.mark.parametrize(
    ("end", "kept"), [(node(4), 3), (node(7), 3), (0x1234, 3), (WILD, 3)], ids=["start", "itself", "user", "wild"]
)
def test_a_chain_that_is_led_astray_ends_with_a_gap(end: int, kept: int) -> None:
    found = chain(Nodes(), 4, 2, 7, end=end)
    assert len(found.items) == kept
    assert len(found.gaps) == 1


def test_a_chain_longer_than_any_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_ENTRIES", 3)
    assert chain(Nodes(), 1, 2, 3).gaps == ()
    assert len(chain(Nodes(), 1, 2, 3, 4).items) == 3
    assert chain(Nodes(), 1, 2, 3, 4).gaps


def grow(image: Nodes, *rows: tuple[int, int | None, int | None, int | None]) -> None:
    """Nodes of a tree as ``(index, parent, left, right)``, colours mixed."""
    for index, parent, left, right in rows:
        above = 0 if parent is None else node(parent)
        image.poke(
            node(index),
            words(
                above | index & 1,
                0 if right is None else node(right),
                0 if left is None else node(left),
            ),
        )


def tree(image: Nodes, root: int = node(1)) -> Observed[int]:
    return walk_tree(image.space(), root, 8, "list")


SOUND = ((1, None, 2, 3), (2, 1, 4, None), (3, 1, None, 5), (4, 2, None, None), (5, 3, None, None))


def test_a_tree_is_walked_whatever_its_colours() -> None:
    image = Nodes()
    grow(image, *SOUND)
    found = tree(image)
    assert sorted(found.items) == [node(index) - 8 for index in range(1, 6)]
    assert found.gaps == ()
    assert tree(image, 0) == Observed(())


@pytest.mark.parametrize(
    ("row", "missing", "why"),
    [
        ((3, 1, 1, 5), set(), "it leads twice or wildly to 0xffff888000100040"),
        ((3, 1, 3, 5), set(), "it leads twice or wildly to 0xffff8880001000c0"),
        ((3, 1, 4, 5), set(), "it leads twice or wildly to 0xffff888000100100"),
        ((3, 2, None, 5), {3, 5}, "its node at 0xffff8880001000c0 names another parent"),
        ((3, None, None, 5), {3, 5}, "its node at 0xffff8880001000c0 names another parent"),
    ],
)
def test_a_tree_that_is_led_astray_ends_with_a_gap(
    row: tuple[int, int | None, int | None, int | None], missing: set[int], why: str
) -> None:
    image = Nodes()
    grow(image, *SOUND)
    grow(image, row)
    found = tree(image)
    assert why in [gap.why for gap in found.gaps]
    lost = {index for index in range(1, 6) if node(index) - 8 not in found.items}
    assert missing <= lost <= missing | {4}


@pytest.mark.parametrize(("link", "why"), [(0x1000, "wildly to 0x1000"), (WILD, hex(WILD))])
def test_a_branch_into_the_wild_costs_that_branch_only(link: int, why: str) -> None:
    image = Nodes()
    grow(image, *SOUND)
    image.poke(node(3) + 8, words(link))
    found = tree(image)
    assert len(found.items) == 4
    (gap,) = found.gaps
    assert why in gap.why


def test_a_tree_larger_than_any_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_ENTRIES", 3)
    image = Nodes()
    grow(image, *SOUND)
    assert len(tree(image).items) == 3
    assert tree(image).gaps


POINTERS = st.one_of(
    st.integers(0, COUNT).map(node), st.integers(0, COUNT).map(lambda i: node(i) + 8), st.sampled_from([0, 1, WILD])
)
Walk = Callable[[AddressSpace], Observed[int]]


@given(st.lists(POINTERS, min_size=3 * COUNT, max_size=3 * COUNT))
def test_every_walk_over_anything_ends_and_gives_nothing_twice(pointers: list[int]) -> None:
    image = Nodes()
    content = bytearray(b"\x6b" * PAGE_SIZE)
    for index in range(COUNT):
        content[SIZE * index : SIZE * index + 24] = words(*pointers[3 * index : 3 * index + 3])
    image.poke(BASE, bytes(content[: SIZE * COUNT]))
    space = image.space()
    walks: tuple[Walk, ...] = (
        lambda s: walk_list(s, node(0), 0, "list"),
        lambda s: walk_chain(s, node(0), 16, "list"),
        lambda s: walk_tree(s, node(0), 0, "list"),
    )
    for walk in walks:
        found = walk(space)
        assert len(set(found.items)) == len(found.items)
        assert len(found.items) <= 2 * COUNT + 2
