from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.plant.registries import bpf_program, memory_slot, notifier
from tests.lab.fakes import HEAP, KERNEL, FakeMachine, Ram, fake_machine, pointers, sym

DATA = VirtAddr(KERNEL + PAGE_SIZE)
NODE, SLOTS = HEAP + 0x60000, 0x28
SPARE = 0x7F00_0012_3000
MARK = bytes(range(1, 17))
SYMBOLS = [
    sym("_etext", KERNEL + 0x100, "T"),
    sym("_stext", KERNEL, "T"),
    sym("die_chain", DATA, "b"),
    sym("prog_idr", DATA + 0x100, "d"),
    sym("page_offset_base", DATA + 0x200, "d"),
]


class Offsets:
    def member(self, structure: str, _: str) -> object:
        return type("Member", (), {"offset": 8 if structure == "idr" else SLOTS})


@pytest.fixture(autouse=True)
def _offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeMachine, "btf", lambda *_: Offsets())
    counts = {"vm1": {"io": 1, "spare": SPARE, "pages": 35}}
    monkeypatch.setattr(FakeMachine, "counts", lambda _: counts)


def layout(path: Path, *, node: int = NODE + 2) -> Ram:
    ram = Ram(path / "ram")
    ram.page(KERNEL, executable=True)
    ram.page(DATA, pointers(0, 0x1234).ljust(0x108, b"\0") + pointers(node).ljust(0xF8, b"\0") + pointers(HEAP))
    put(ram, 0x60000 + SLOTS, pointers(0, 0, 0, 0xABCD))
    put(ram, 0x62000, MARK * 8)
    return ram


def put(ram: Ram, at: int, data: bytes) -> None:
    ram.data[at : at + len(data)] = data


def host(command: str) -> str:
    if command.startswith("hold"):
        return MARK.hex()
    return "pos:\t0\nprog_type:\t1\nprog_id:\t2\nprog_id:\t3\n" if "fdinfo" in command else ""


def test_a_callback_comes_before_all_others(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS, host) as machine:
        planted = notifier(machine, chain="die_chain")
        assert planted.stub is not None
        block = machine.memory.pointer(VirtAddr(DATA + 8))
        assert block == planted.values["block"]
        assert machine.memory.read(block, 16) == pointers(planted.stub, 0x1234)
        assert machine.memory.read(planted.stub, 7) == bytes.fromhex("f30f1efa31c0c3")


def test_the_newest_program_loses_its_number(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS, host) as machine:
        planted = bpf_program(machine)
        assert planted.values == {"program": 0xABCD, "number": 3}
        assert machine.memory.pointer(VirtAddr(NODE + SLOTS + 24)) == 0
        with pytest.raises(UsageError, match="does not hold program 3"):
            bpf_program(machine)


@pytest.mark.parametrize(("node", "script", "reason"), [(0xABCD0, host, "no node"), (NODE + 2, str, "number 0")])
def test_without_a_node_or_a_number_nothing_is_hidden(tmp_path: Path, node: int, script: object, reason: str) -> None:
    with (
        fake_machine(layout(tmp_path, node=node), SYMBOLS, script) as machine,  # type: ignore[arg-type]  # a script
        pytest.raises(NotApplicable, match=reason),
    ):
        bpf_program(machine)


def test_a_slot_is_told_from_other_copies_of_its_address(tmp_path: Path) -> None:
    ram = layout(tmp_path)
    put(ram, 0x61100, pointers(SPARE))
    put(ram, 0x61200, pointers(0x100, 35, 0, SPARE))
    with fake_machine(ram, SYMBOLS) as machine:
        (change,) = memory_slot(machine).changes
        assert change.address == HEAP + 0x61218
        assert machine.memory.pointer(change.address) == KERNEL


def test_a_host_without_such_a_slot_is_told(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine, pytest.raises(NotApplicable, match="no memory slot"):
        memory_slot(machine)
