import struct
from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.plant.heap import each_heap_match, hold, object_ops, on_list, only_match, table_entry, wake_function
from hypervigil.lab.plant.stub import jump_far
from tests.lab.fakes import HEAP, KERNEL, MODULE, Ram, fake_machine, pointers, sym

DATA = VirtAddr(MODULE + 2 * PAGE_SIZE)
BASE = VirtAddr(KERNEL + PAGE_SIZE)
MARK = bytes(range(1, 17))
OBJECT, FREE, BLOCK = 0x60000, 0x61000, 0x62008
SYMBOLS = [
    sym("_etext", KERNEL + 0x100, "T"),
    sym("page_offset_base", BASE, "d"),
    sym("read", MODULE, module="kvm_amd"),
    sym("irqfd_wakeup", MODULE + 0x10, module="kvm_amd"),
    sym("ops", DATA, "r", "kvm"),
    sym("table", DATA + 16, "d", "kvm"),
    sym("end", DATA + 32, "d", "kvm"),
]


def layout(path: Path) -> Ram:
    ram = Ram(path / "ram")
    ram.page(KERNEL, executable=True)
    ram.page(BASE, pointers(HEAP))
    ram.page(MODULE, b"\x90" * 32, executable=True)
    ram.page(DATA, pointers(MODULE, 5, DATA, 0))
    put(ram, OBJECT, pointers(DATA))
    put(ram, BLOCK, MARK * 6)
    return ram


def put(ram: Ram, at: int, data: bytes) -> None:
    ram.data[at : at + len(data)] = data


def script(command: str) -> str:
    return MARK.hex() if command.startswith("hold") else ""


def test_an_object_is_pointed_at_a_copy_with_one_other_function(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS, script) as machine:
        planted = object_ops(machine, ops=["ops"], function=["read"], what="device.ops")
        copy = VirtAddr(planted.values["copy"])
        assert planted.changes[0].object == "device.ops"
        assert machine.memory.pointer(VirtAddr(HEAP + OBJECT)) == copy
        assert planted.stub is not None
        assert machine.memory.read(copy, 16) == pointers(planted.stub, 5)
        assert machine.memory.read(DATA, 8) == pointers(MODULE)
        assert machine.memory.read(planted.stub, 17) == jump_far(MODULE)


def test_an_entry_of_a_table_is_pointed_at_a_copy(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS, script) as machine:
        planted = table_entry(machine, table=["table"], ops=["ops"], function=["read"])
        assert machine.memory.pointer(VirtAddr(DATA + 16)) == planted.values["copy"]


def test_old_symbol_tables_in_free_memory_are_no_objects(tmp_path: Path) -> None:
    ram = layout(tmp_path)
    entries = b"".join(struct.pack("<IBBHQQ", 9, 1, 0, 3, value, 16) for value in (MODULE, DATA, DATA + 16))
    put(ram, FREE, entries)
    with fake_machine(ram, SYMBOLS) as machine:
        assert list(each_heap_match(machine, pointers(DATA))) == [HEAP + OBJECT]


def test_two_objects_are_one_too_many(tmp_path: Path) -> None:
    ram = layout(tmp_path)
    put(ram, FREE, pointers(DATA))
    with fake_machine(ram, SYMBOLS) as machine:
        with pytest.raises(UsageError, match="2 places that look like a file"):
            only_match(machine, pointers(DATA), "a file")
        with pytest.raises(NotApplicable, match="has no file"):
            only_match(machine, b"nowhere.", "file")


def test_a_held_block_is_aligned_and_inside(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS, script) as machine:
        address = hold(machine, 64)
        assert address % 16 == 0
        assert address >= HEAP + BLOCK
        assert address + 64 <= HEAP + BLOCK + 96


def test_a_waiter_is_told_from_stray_copies_by_its_list(tmp_path: Path) -> None:
    ram = layout(tmp_path)
    put(ram, FREE, pointers(0, MODULE + 0x10, 0, 0))
    head, entry = HEAP + OBJECT + 0x100, HEAP + OBJECT + 0x50
    put(ram, OBJECT + 0x40, pointers(0, MODULE + 0x10, head, head))
    put(ram, OBJECT + 0x100, pointers(entry, entry))
    with fake_machine(ram, SYMBOLS) as machine:
        planted = wake_function(machine)
        assert planted.changes[0].address == HEAP + OBJECT + 0x48
        assert machine.memory.pointer(VirtAddr(HEAP + OBJECT + 0x48)) == planted.stub


def test_a_host_without_waiters_is_told(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        with pytest.raises(NotApplicable, match="no irqfd"):
            wake_function(machine)
        assert not on_list(machine, VirtAddr(HEAP + PhysAddr(FREE)))
