from pathlib import Path

import pytest

from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.plant.calls import call_site, static_call_key, static_call_trampoline
from hypervigil.lab.plant.stub import branch, jump_far
from tests.lab.fakes import KERNEL, MODULE, Ram, fake_machine, pointers, sym

KEY = VirtAddr(MODULE + 2 * PAGE_SIZE)
TARGET, TRAMPOLINE, CALLER = MODULE, VirtAddr(MODULE + 0x20), VirtAddr(MODULE + 0x40)
SYMBOLS = [
    sym("_etext", KERNEL + 0x100, "T"),
    sym("target", TARGET, module="kvm_amd"),
    sym("__SCT__call", TRAMPOLINE, module="kvm_amd"),
    sym("__SCT__empty", TRAMPOLINE + 8, module="kvm_amd"),
    sym("caller", CALLER, module="kvm_amd"),
    sym("end", CALLER + 0x20, module="kvm_amd"),
    sym("__SCK__call", KEY, "d", "kvm_amd"),
]


def layout(path: Path) -> Ram:
    ram = Ram(path / "ram")
    ram.page(KERNEL, executable=True)
    code = bytearray(b"\x90" * 0x61)
    code[0x20:0x25] = branch(0xE9, TRAMPOLINE, TARGET)
    code[0x43:0x48] = branch(0xE8, CALLER + 3, TARGET + 4)
    code[0x50:0x55] = branch(0xE8, CALLER + 0x10, TARGET)
    ram.page(MODULE, bytes(code), executable=True)
    ram.page(KEY, pointers(TARGET))
    return ram


def test_a_trampoline_is_turned(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        planted = static_call_trampoline(machine, call="call")
        assert planted.stub is not None
        assert machine.memory.read(TRAMPOLINE, 5) == branch(0xE9, TRAMPOLINE, planted.stub)
        assert machine.memory.read(planted.stub, 5) == branch(0xE9, planted.stub, TARGET)


def test_a_trampoline_without_a_jump_is_left_alone(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine, pytest.raises(NotApplicable, match="holds no jump"):
        static_call_trampoline(machine, call="empty")


def test_a_key_is_turned(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        planted = static_call_key(machine, call="call")
        assert planted.stub is not None
        assert machine.memory.pointer(KEY) == planted.stub
        assert machine.memory.read(planted.stub, 17) == jump_far(TARGET)


def test_only_the_call_of_that_function_is_turned(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        planted = call_site(machine, function=["caller"], callee=["target"])
        assert planted.stub is not None
        assert planted.changes[0].object == "caller+0x10 call of target"
        assert machine.memory.read(VirtAddr(CALLER + 0x10), 5) == branch(0xE8, CALLER + 0x10, planted.stub)
        with pytest.raises(NotApplicable, match="does not call end"):
            call_site(machine, function=["caller"], callee=["end"])
