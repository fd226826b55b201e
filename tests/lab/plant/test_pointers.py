from pathlib import Path

import pytest

from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.plant.pointers import idt_gate, slot_of, table_slot
from hypervigil.lab.plant.stub import jump_far
from tests.lab.fakes import KERNEL, MODULE, Ram, fake_machine, pointers, sym

DATA = VirtAddr(MODULE + 2 * PAGE_SIZE)
SYMBOLS = [
    sym("_etext", KERNEL + 0x100, "T"),
    sym("handle_exit", MODULE, module="kvm_amd"),
    sym("elsewhere", MODULE + 0x10, module="kvm_amd"),
    sym("kvm_x86_ops", DATA, "d", "kvm"),
    sym("after", DATA + 24, "d", "kvm"),
    sym("page_fault", KERNEL + 0x40, "T"),
    sym("idt_table", DATA + 0x100, "b"),
]


def layout(path: Path) -> Ram:
    ram = Ram(path / "ram")
    ram.page(KERNEL, executable=True)
    ram.page(MODULE, b"\x90" * 32, executable=True)
    target = (KERNEL + 0x40).to_bytes(8, "little")
    gate = target[0:2] + b"\x10\0\0\x8e" + target[2:4] + target[4:8] + bytes(4)
    table = pointers(1, MODULE, 3, MODULE + 0x10)
    ram.page(DATA, table.ljust(0x100, b"\0") + bytes(14 * 16) + gate)
    return ram


def test_the_slot_is_found_by_its_value_and_turned(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        planted = table_slot(machine, table=["none", "kvm_x86_ops"], function=["handle_exit"], member="handle_exit")
        change = planted.changes[0]
        assert (change.object, change.address) == ("kvm_x86_ops.handle_exit", DATA + 8)
        assert machine.memory.pointer(VirtAddr(DATA + 8)) == planted.stub
        assert planted.stub is not None
        assert machine.memory.read(planted.stub, 17) == jump_far(MODULE)
        assert planted.values == {"original": MODULE, "table": DATA}


def test_what_lies_behind_the_table_is_not_in_it(tmp_path: Path) -> None:
    with (
        fake_machine(layout(tmp_path), SYMBOLS) as machine,
        pytest.raises(NotApplicable, match="no slot for elsewhere"),
    ):
        slot_of(machine, machine.symbols.find("kvm_x86_ops"), ["elsewhere"])


def test_an_unaligned_value_is_no_slot(tmp_path: Path) -> None:
    ram = layout(tmp_path)
    ram.page(DATA, b"\0" + pointers(MODULE, MODULE))
    with fake_machine(ram, SYMBOLS) as machine, pytest.raises(NotApplicable):
        slot_of(machine, machine.symbols.find("kvm_x86_ops"), ["handle_exit"])


def test_a_gate_keeps_all_but_its_offset(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        planted = idt_gate(machine, vector=14, handler=["page_fault"])
        gate = machine.memory.read(VirtAddr(DATA + 0x100 + 14 * 16), 16)
        assert int.from_bytes(gate[0:2] + gate[6:8] + gate[8:12], "little") == planted.stub
        assert (gate[2:6], gate[12:]) == (b"\x10\0\0\x8e", bytes(4))
        assert planted.values == {"original": KERNEL + 0x40}


def test_a_gate_that_leads_elsewhere_already_is_left_alone(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine, pytest.raises(NotApplicable, match="gate 13 leads to"):
        idt_gate(machine, vector=13, handler=["page_fault"])
