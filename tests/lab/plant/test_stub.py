from pathlib import Path

import capstone
import pytest

from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.plant.stub import branch, direct_pass_through, jump_far, only_returns, pass_through, room
from tests.lab.fakes import KERNEL, MODULE, Ram, fake_machine, sym

SYMBOLS = [sym("_etext", KERNEL + 0x100, "T"), sym("last", MODULE + 0x20, module="kvm_amd")]


def disassembly(code: bytes, at: int = 0) -> list[str]:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return [f"{mnemonic} {operands}".strip() for _, _, mnemonic, operands in decoder.disasm_lite(code, at)]


def layout(path: Path, *, module_tail: bytes = b"") -> Ram:
    ram = Ram(path / "ram")
    ram.page(KERNEL, b"\x90" * 0x100 + b"\xcc" * (PAGE_SIZE - 0x100), executable=True)
    ram.page(MODULE, b"\x90" * 0x40 + module_tail, executable=True)
    return ram


def test_calls_are_passed_on() -> None:
    assert disassembly(jump_far(0xFFFF_FFFF_C000_1234)) == [
        "endbr64",
        "movabs r11, 0xffffffffc0001234",
        "jmp r11",
    ]
    assert disassembly(branch(0xE8, 0x1000, 0x0FF0), 0x1000) == ["call 0xff0"]


def test_a_stub_goes_to_the_end_of_the_modules_text(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        stub = pass_through(machine, KERNEL)
        assert MODULE + PAGE_SIZE - 64 < stub.address < MODULE + PAGE_SIZE - 16
        assert machine.memory.read(stub.address, 17) == jump_far(KERNEL)
        assert stub.change.before == bytes(17).hex()


def test_a_full_module_is_passed_over_for_the_kernel(tmp_path: Path) -> None:
    full = bytes(range(1, 255)) * 16
    with fake_machine(layout(tmp_path, module_tail=full[: PAGE_SIZE - 0x40]), SYMBOLS) as machine:
        assert KERNEL < room(machine, "kvm_amd", 8) < KERNEL + PAGE_SIZE


def test_without_room_nothing_is_planted(tmp_path: Path) -> None:
    ram = Ram(tmp_path / "ram")
    ram.page(KERNEL, b"\x90" * PAGE_SIZE, executable=True)
    with fake_machine(ram, SYMBOLS[:1]) as machine, pytest.raises(NotApplicable, match="no unused room"):
        only_returns(machine)


def test_data_pages_hold_no_stub(tmp_path: Path) -> None:
    ram = Ram(tmp_path / "ram")
    ram.page(KERNEL, b"")
    with fake_machine(ram, SYMBOLS[:1]) as machine, pytest.raises(NotApplicable):
        only_returns(machine)


def test_a_direct_stub_carries_displaced_code_out_first(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        stub = direct_pass_through(machine, MODULE + 8, "kvm_amd", b"\x55\x53")
        assert disassembly(machine.memory.read(stub.address, 7), stub.address) == [
            "push rbp",
            "push rbx",
            f"jmp {MODULE + 8:#x}",
        ]
        assert VirtAddr(stub.address) % 16 == 0
