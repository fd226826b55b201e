from pathlib import Path

import pytest

from hypervigil.core.units import VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.plant.stub import branch
from hypervigil.lab.plant.text import detour, ftrace_site, other_encoding
from tests.lab.fakes import KERNEL, MODULE, Ram, fake_machine, sym

ENDBR, SEALED, NOP5 = bytes.fromhex("f30f1efa"), bytes.fromhex("0f1f40d6"), bytes.fromhex("0f1f440000")
BODY = bytes.fromhex("554889e541574889d0c3")
SYMBOLS = [
    sym("_etext", KERNEL + 0x100, "T"),
    sym("plain", MODULE, module="kvm_amd"),
    sym("marked", MODULE + 0x40, module="kvm_amd"),
    sym("sealed", MODULE + 0x80, module="kvm_amd"),
    sym("short", MODULE + 0xC0, module="kvm_amd"),
    sym("end", MODULE + 0x100, module="kvm_amd"),
]


def layout(path: Path) -> Ram:
    ram = Ram(path / "ram")
    ram.page(KERNEL, executable=True)
    functions = (NOP5 + BODY, ENDBR + NOP5 + BODY, SEALED + NOP5 + BODY, b"\xc3")
    ram.page(MODULE, b"".join(code.ljust(0x40, b"\x90") for code in functions) + b"\x90", executable=True)
    return ram


@pytest.mark.parametrize(("function", "site"), [("plain", 0), ("marked", 0x44), ("sealed", 0x84)])
def test_the_ftrace_site_comes_after_the_branch_mark(tmp_path: Path, function: str, site: int) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        planted = ftrace_site(machine, function=[function])
        assert planted.stub is not None
        assert planted.changes[0].address == MODULE + site
        assert machine.memory.read(VirtAddr(MODULE + site), 5) == branch(0xE8, MODULE + site, planted.stub)
        assert machine.memory.read(planted.stub, 1) == b"\xc3"


def test_a_function_without_a_site_is_left_alone(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine, pytest.raises(NotApplicable, match="no idle ftrace site"):
        ftrace_site(machine, function=["short"])


def test_a_detour_carries_out_what_it_overwrites(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        planted = detour(machine, function=["none", "short", "marked"], module="kvm_amd")
        assert planted.stub is not None
        site = MODULE + 0x49
        assert machine.memory.read(VirtAddr(site), 6) == branch(0xE9, site, planted.stub) + b"\x90"
        back = branch(0xE9, planted.stub + 6, site + 6)
        assert machine.memory.read(planted.stub, 11) == BODY[:6] + back


def test_without_movable_code_nothing_is_planted(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine, pytest.raises(NotApplicable, match="none of short"):
        detour(machine, function=["short"], module="kvm_amd")


def test_one_instruction_is_written_another_way(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        (change,) = other_encoding(machine, function=["plain"], module="kvm_amd").changes
        assert (change.before, change.after) == ("4889e5", "488bec")
        with pytest.raises(NotApplicable, match="no move"):
            other_encoding(machine, function=["short"], module="kvm_amd")
