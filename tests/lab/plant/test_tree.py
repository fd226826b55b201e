import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervigil.core.errors import UsageError
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.plant.change import put_all
from hypervigil.lab.plant.tree import _rebuilt, without_module
from tests.lab.fakes import KERNEL, MODULE, FakeMachine, Ram, fake_machine, sym

HEAD = KERNEL
NODES = VirtAddr(KERNEL + PAGE_SIZE)
STEP = 64
SYMBOLS = [sym("mod_tree", HEAD, "d")]


def owner_of(number: int) -> int:
    return MODULE + number // 2  # two nodes for each module


def layout(path: Path, count: int) -> Ram:
    """`count` nodes in two chains that lean to the right."""
    ram = Ram(path / "ram")
    ram.page(HEAD, struct.pack("<QQQ", 0, NODES + 8, NODES + 8 + 24), writable=True)
    content = b""
    for number in range(count):
        entry = struct.pack("<Q", owner_of(number))
        for half in range(2):
            following = NODES + STEP * (number + 1) + 8 + 24 * half if number + 1 < count else 0
            entry += struct.pack("<QQQ", 1, following, 0)
        content += entry.ljust(STEP, b"\0")
    ram.page(NODES, content, writable=True)
    return ram


def walked(machine: FakeMachine, half: int) -> list[int]:
    """The numbers of the nodes in order, with the tree's rules checked on the way."""

    def below(node: int, parent: int, *, red: bool) -> tuple[list[int], int]:
        if not node:
            return [], 1
        colour, right, left = struct.unpack("<QQQ", machine.memory.read(VirtAddr(node), 24))
        black = bool(colour & 1)
        assert colour & ~1 == parent
        assert black or not red, "two red nodes in a row"
        before, depth = below(left, node, red=not black)
        after, other = below(right, node, red=not black)
        assert depth == other, "paths with different numbers of black nodes"
        return [*before, (node - NODES) // STEP, *after], depth + black

    return below(machine.memory.pointer(VirtAddr(HEAD + 8 + 8 * half)), 0, red=False)[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12)
@given(st.integers(1, 40), st.data())
def test_a_module_is_taken_off_and_the_tree_stays_a_tree(
    tmp_path_factory: pytest.TempPathFactory, count: int, data: st.DataObject
) -> None:
    module = data.draw(st.integers(0, (count - 1) // 2))
    with fake_machine(layout(tmp_path_factory.mktemp("tree"), count), SYMBOLS) as machine:
        put_all(machine, without_module(machine, VirtAddr(MODULE + module)))
        left = [number for number in range(count) if number // 2 != module]
        assert [walked(machine, half) for half in range(2)] == [left, left]


def test_a_module_that_is_not_there_is_told(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path, 4), SYMBOLS) as machine, pytest.raises(NotApplicable, match="not in mod_tree"):
        without_module(machine, VirtAddr(MODULE + 999))


def test_a_tree_that_goes_in_circles_is_told(tmp_path: Path) -> None:
    ram = layout(tmp_path, 1)
    ram.page(NODES, struct.pack("<QQQQ", MODULE, 1, 0, NODES + 8))
    with fake_machine(ram, SYMBOLS) as machine, pytest.raises(UsageError, match="does not end"):
        without_module(machine, MODULE)


def test_an_empty_tree_has_an_empty_root() -> None:
    assert [write.data for write in _rebuilt(HEAD, [])] == [bytes(8)]
