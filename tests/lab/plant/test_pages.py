from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.memory import NX, WRITABLE
from hypervigil.lab.plant.pages import const_bytes, ownerless_code, writable_text
from hypervigil.lab.plant.stub import jump_far
from tests.lab.fakes import HEAP, KERNEL, MODULE, Ram, fake_machine, pointers, sym

VMALLOC = VirtAddr(0xFFFF_C900_0000_0000)
SYMBOLS = [
    sym("page_offset_base", KERNEL, "d"),
    sym("kvm_vcpu_ioctl", MODULE, module="kvm"),
    sym("table", MODULE + PAGE_SIZE, "r", "kvm"),
    sym("end", MODULE + PAGE_SIZE + 16, "r", "kvm"),
]


def layout(path: Path, *, used: bytes = b"") -> Ram:
    ram = Ram(path / "ram")
    ram.page(KERNEL, pointers(HEAP))
    ram.page(MODULE, b"\x90", executable=True)
    ram.page(VirtAddr(MODULE + PAGE_SIZE), pointers(5, MODULE))
    ram.page(VMALLOC, b"\x90" * 100 + bytes(3900) + used, writable=True)
    return ram


def host(command: str) -> str:
    if "n_tty_open" in command:
        return f"{VMALLOC:#x}-{VMALLOC + 2 * PAGE_SIZE:#x}    8192 n_tty_open+0x14/0xa0 pages=1 vmalloc\n"
    return "1\n"


def test_only_the_writable_bit_of_a_functions_page_changes(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        old = machine.memory.entry(MODULE)[1]
        planted = writable_text(machine, function=["kvm_vcpu_ioctl"])
        assert machine.memory.entry(MODULE)[1] == old | WRITABLE
        assert (planted.values["page"], planted.values["size"]) == (MODULE, PAGE_SIZE)
        with pytest.raises(NotApplicable, match="writable page already"):
            writable_text(machine, function=["kvm_vcpu_ioctl"])


def test_a_page_of_plain_memory_becomes_code(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS, host) as machine:
        planted = ownerless_code(machine)
        assert planted.stub is not None
        assert VMALLOC < planted.stub < VMALLOC + PAGE_SIZE
        assert machine.memory.entry(VMALLOC)[1] & NX == 0
        assert machine.memory.read(planted.stub, 17) == jump_far(MODULE)


def test_a_slot_may_lead_to_the_page(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS, host) as machine:
        planted = ownerless_code(machine, table=["table"], function=["kvm_vcpu_ioctl"])
        assert machine.memory.pointer(VirtAddr(MODULE + PAGE_SIZE + 8)) == planted.stub


def test_a_page_that_is_in_use_to_its_end_is_not_taken(tmp_path: Path) -> None:
    with (
        fake_machine(layout(tmp_path, used=b"x"), SYMBOLS, host) as machine,
        pytest.raises(UsageError, match="no terminal buffer"),
    ):
        ownerless_code(machine)


def test_one_bit_of_a_constant_flips(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        (change,) = const_bytes(machine, table=["table"], offset=0, flip=128).changes
        assert (change.object, change.before, change.after) == ("table+0x0", "05", "85")
