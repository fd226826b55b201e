import struct
from pathlib import Path

import pytest

from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.plant.nested import each_vmcb, maps_kernel, maps_neighbour, no_cpuid_intercept
from tests.lab.fakes import HEAP, KERNEL, Ram, fake_machine, pointers, sym

CODE = VirtAddr(KERNEL + PAGE_SIZE)
SYMBOLS = [sym("page_offset_base", KERNEL, "d"), sym("_stext", CODE + 0x40, "T")]
TABLES, CONTROL = 0x60000, 0x70000
FRAME = 0x7F000


def add_guest(ram: Ram, number: int) -> None:
    """A control block and four levels of nested tables that map guest page 1."""
    base = TABLES + number * 0x4000
    for level in range(3):
        struct.pack_into("<Q", ram.data, base + level * PAGE_SIZE, base + (level + 1) * PAGE_SIZE | 7)
    struct.pack_into("<Q", ram.data, base + 3 * PAGE_SIZE + 8, FRAME + number * PAGE_SIZE | 7 | 1 << 57)
    block = CONTROL + number * PAGE_SIZE
    struct.pack_into("<I", ram.data, block + 0x0C, 1 << 18 | 1)
    struct.pack_into("<I", ram.data, block + 0x58, number + 1)
    struct.pack_into("<Q", ram.data, block + 0x90, 1)
    struct.pack_into("<Q", ram.data, block + 0xB0, base)
    struct.pack_into("<Q", ram.data, block + 0x578, 0x1010 + number)


def layout(path: Path, guests: int) -> Ram:
    ram = Ram(path / "ram")
    ram.page(KERNEL, pointers(HEAP))
    ram.page(CODE, executable=True)
    for number in range(guests):
        add_guest(ram, number)
    return ram


def test_control_blocks_are_told_by_what_they_hold(tmp_path: Path) -> None:
    ram = layout(tmp_path, 3)
    ram.data[CONTROL + PAGE_SIZE + 0x90] = 0  # no nested paging
    struct.pack_into("<Q", ram.data, CONTROL + 2 * PAGE_SIZE + 0xB0, 0x7F000)  # no tables there
    with fake_machine(ram, SYMBOLS) as machine:
        assert [(block.address, block.root) for block in each_vmcb(machine)] == [(CONTROL, TABLES)]


def test_the_kernels_code_is_mapped_for_reading(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path, 1), SYMBOLS) as machine:
        planted = maps_kernel(machine)
        frame = machine.memory.translate(CODE)
        where = TABLES + 3 * PAGE_SIZE + 9 * 8
        assert machine.memory.physical(PhysAddr(where), 8) == pointers(frame | 5)
        assert planted.values["frame"] == frame


def test_a_neighbours_page_is_mapped(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path, 2), SYMBOLS) as machine:
        assert maps_neighbour(machine).values["frame"] == FRAME + PAGE_SIZE


def test_one_guest_has_no_neighbour(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path, 1), SYMBOLS) as machine, pytest.raises(NotApplicable, match="2 are needed"):
        maps_neighbour(machine)


def test_a_page_in_use_is_not_taken(tmp_path: Path) -> None:
    ram = layout(tmp_path, 1)
    struct.pack_into("<Q", ram.data, TABLES + 3 * PAGE_SIZE + 9 * 8, 1)
    with fake_machine(ram, SYMBOLS) as machine, pytest.raises(NotApplicable, match="uses the page"):
        maps_kernel(machine)


def test_only_the_intercept_of_cpuid_is_cleared(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path, 1), SYMBOLS) as machine:
        (change,) = no_cpuid_intercept(machine).changes
        assert (change.address, change.after) == (HEAP + CONTROL + 0x0C, "01000000")
        with pytest.raises(NotApplicable, match="not intercepted"):
            no_cpuid_intercept(machine)
