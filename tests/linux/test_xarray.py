import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervigil.core.facts import Observed
from hypervigil.linux import xarray
from hypervigil.linux.xarray import xarray_entries
from tests.linux.host_builder import host
from tests.linux.kernel_builder import HEAP, KernelImage

AWAY = HEAP + (1 << 41)
THINGS = [HEAP + 16 * index for index in range(1, 200)]


def node(image: KernelImage, slots: dict[int, int]) -> int:
    """A node on the heap; return the entry that leads to it."""
    address = image.object("xa_node")
    for index, value in slots.items():
        image.member("xa_node", address, f"slots[{index}]", value)
    return address | 2


def entries(image: KernelImage, head: int) -> Observed[int]:
    return xarray_entries(image.open(), head, "array")


def test_an_empty_array_has_nothing_and_a_single_entry_needs_no_node() -> None:
    assert entries(host(), 0) == Observed(())
    assert entries(host(), THINGS[0]) == Observed((THINGS[0],))


def test_entries_come_in_the_order_of_their_indices() -> None:
    image = host()
    low = node(image, {0: THINGS[5], 63: THINGS[1]})
    high = node(image, {2: THINGS[3]})
    top = node(image, {1: high, 0: low, 3: THINGS[9]})
    assert entries(image, top).items == (THINGS[5], THINGS[1], THINGS[3], THINGS[9])


@pytest.mark.parametrize("value", [1, 3, 0x1235, 2, 6, 254, 4094], ids=hex)
def test_values_and_internal_entries_are_no_pointers(value: int) -> None:
    image = host()
    assert entries(image, node(image, {4: value, 5: THINGS[0]})) == Observed((THINGS[0],))


def test_a_node_that_leads_back_is_a_gap() -> None:
    image = host()
    top = node(image, {0: THINGS[0], 9: THINGS[1]})
    image.member("xa_node", top - 2, "slots[5]", top)
    found = entries(image, top)
    assert found.items == (THINGS[0], THINGS[1])
    assert [(gap.what, gap.why) for gap in found.gaps] == [("array", f"it leads twice to its node at {top - 2:#x}")]


def test_a_node_that_is_lost_is_a_gap_and_costs_its_entries_only() -> None:
    image = host()
    found = entries(image, node(image, {0: THINGS[0], 1: AWAY | 2, 2: THINGS[1]}))
    assert found.items == (THINGS[0], THINGS[1])
    assert [gap.what for gap in found.gaps] == ["array"]


def test_an_array_of_more_nodes_than_any_ends_with_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xarray, "_MAX_NODES", 3)
    image = host()
    leaves = {index: node(image, {0: THINGS[index]}) for index in range(4)}
    found = entries(image, node(image, leaves))
    assert found.items == (THINGS[0], THINGS[1])
    assert len(found.gaps) == 2


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 63), st.integers(0, 5)), max_size=40))
def test_any_graph_of_nodes_ends(links: list[tuple[int, int, int]]) -> None:
    image = host()
    nodes = [node(image, {}) for _ in range(4)]
    targets = [*nodes, THINGS[0], AWAY | 2]
    for start, slot, target in links:
        image.member("xa_node", nodes[start] - 2, f"slots[{slot}]", targets[target])
    found = entries(image, nodes[0])
    assert set(found.items) <= {THINGS[0]}
    reached = _reached(links)
    assert bool(found.items) == (4 in reached)
    assert bool(found.gaps) or 5 not in reached


def _reached(links: list[tuple[int, int, int]]) -> set[int]:
    """What can be reached from the first node, where a later link takes an earlier one's slot."""
    slots = {(start, slot): target for start, slot, target in links}
    reached, waiting = {0}, [0]
    while waiting:
        at = waiting.pop()
        fresh = {target for (start, _), target in slots.items() if start == at} - reached
        reached |= fresh
        waiting += [target for target in fresh if target < 4]
    return reached
