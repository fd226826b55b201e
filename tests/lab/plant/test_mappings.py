import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.memory import NX
from hypervigil.lab.plant import mappings
from hypervigil.lab.plant.mappings import entry_area_idt, parked, private_text
from hypervigil.lab.plant.pointers import gate_target
from tests.lab.fakes import HEAP, KERNEL, MODULE, FakeMachine, Ram, fake_machine, pointers, sym

AREA = VirtAddr(0xFFFF_FE00_0000_0000)
IDT, HANDLER = VirtAddr(KERNEL + PAGE_SIZE), KERNEL + 0x40
TOP, TASK, MAP = 0x70000, 0x71000, 0x72000
FRAMES = (0x60000, 0x61000, 0x62000, 0x63000)
CODE = bytes.fromhex("0f1f440000554889e5c3")
SYMBOLS = [
    sym("_etext", KERNEL + 0x100, "T"),
    sym("page_fault", HANDLER, "T"),
    sym("idt_table", IDT, "b"),
    sym("page_offset_base", KERNEL + 2 * PAGE_SIZE, "d"),
    sym("run", MODULE, module="kvm"),
    sym("end", MODULE + len(CODE), module="kvm"),
]


def layout(path: Path, *, same: bool = True) -> Ram:
    ram = Ram(path / "ram")
    ram.page(KERNEL, executable=True)
    target = HANDLER.to_bytes(8, "little")
    gate = target[0:2] + b"\x10\0\0\x8e" + target[2:4] + target[4:8] + bytes(4)
    ram.page(IDT, bytes(14 * 16) + gate)
    ram.map(AREA, PhysAddr(0x81000 if same else 0x50000), writable=False)  # the frame of the second page
    ram.page(VirtAddr(KERNEL + 2 * PAGE_SIZE), pointers(HEAP))
    ram.page(MODULE, CODE, executable=True)
    return ram


def host(count: int) -> Callable[[str], str]:
    frames = "".join(f"{frame // PAGE_SIZE:x}\n" for frame in FRAMES[:count])
    return lambda command: frames if command.startswith("park") else "8\n"


def test_processors_see_another_table_and_the_kernels_own_stays(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS, host(1)) as machine:
        planted = entry_area_idt(machine, vector=14, handler=["page_fault"])
        assert gate_target(machine.memory.read(VirtAddr(AREA + 14 * 16), 16)) == planted.stub
        assert gate_target(machine.memory.read(VirtAddr(IDT + 14 * 16), 16)) == HANDLER
        assert machine.memory.entry(AREA)[1] & NX
        assert planted.values["copy"] == FRAMES[0]
        assert len(planted.changes[1].after) == 32


def test_a_table_that_is_not_in_use_is_left_alone(tmp_path: Path) -> None:
    with (
        fake_machine(layout(tmp_path, same=False), SYMBOLS, host(1)) as machine,
        pytest.raises(NotApplicable, match="another interrupt table"),
    ):
        entry_area_idt(machine, vector=14, handler=["page_fault"])


def test_a_gate_that_leads_elsewhere_is_left_alone(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS, host(1)) as machine, pytest.raises(NotApplicable, match="gate 13"):
        entry_area_idt(machine, vector=13, handler=["page_fault"])


def test_frames_that_are_not_told_are_told(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS, host(1)) as machine, pytest.raises(UsageError, match="page frames"):
        parked(machine, 2)


def large(ram: Ram) -> None:
    """Maps the module's code by one page of 2 MiB instead."""
    table = 0x1000
    for level in (3, 2):
        (value,) = struct.unpack_from("<Q", ram.data, table + 8 * ((MODULE >> (12 + 9 * level)) & 0x1FF))
        table = value & ~0xFFF
    struct.pack_into("<Q", ram.data, table + 8 * ((MODULE >> 21) & 0x1FF), 0x1A1)
    at = MODULE & 0x1FFFFF
    ram.data[at : at + len(CODE)] = CODE


class Offsets:
    def member(self, *_: str) -> object:
        return type("Member", (), {"offset": 8})


@pytest.mark.parametrize("prepare", [lambda _: None, large], ids=["small pages", "large pages"])
def test_one_process_sees_other_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Ram], None]
) -> None:
    ram = layout(tmp_path)
    prepare(ram)
    ram.data[TASK + 8 : TASK + 16] = pointers(HEAP + MAP)
    ram.data[MAP + 8 : MAP + 16] = pointers(HEAP + TOP)
    ram.data[TOP : TOP + PAGE_SIZE] = ram.data[0x1000:0x2000]
    monkeypatch.setattr(FakeMachine, "btf", lambda *_: Offsets())
    monkeypatch.setattr(mappings, "task_of", lambda *_: VirtAddr(HEAP + TASK))
    with fake_machine(ram, SYMBOLS, host(4)) as machine:
        planted = private_text(machine, function=["run"], process="nest")
        assert machine.memory.read(MODULE, len(CODE)) == CODE
        assert machine.memory.read(KERNEL, 16) == bytes(16)
        machine.memory.root = PhysAddr(TOP)
        assert machine.memory.read(MODULE, len(CODE)) == CODE.replace(b"\x48\x89\xe5", b"\x48\x8b\xec")
        assert machine.memory.translate(MODULE) == FRAMES[0]
        assert machine.memory.read(KERNEL, 16) == bytes(16)
        assert machine.memory.entry(MODULE)[1] & NX == 0
        assert planted.changes[0].address == HEAP + TOP + 8 * 511


def test_a_function_without_such_an_instruction_is_left_alone(tmp_path: Path) -> None:
    ram = layout(tmp_path)
    ram.page(MODULE, b"\xc3", executable=True)
    with fake_machine(ram, SYMBOLS, host(4)) as machine, pytest.raises(NotApplicable, match="no move between"):
        private_text(machine, function=["run"], process="nest")
