import struct
from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.lab.plant import tasks
from tests.lab.fakes import HEAP, KERNEL, FakeMachine, Ram, fake_machine, pointers, sym

INIT, VM_LIST = KERNEL, VirtAddr(KERNEL + PAGE_SIZE)
ONE, TWO, PIDS, KVM = (VirtAddr(HEAP + at) for at in (0x60000, 0x61000, 0x62000, 0x64000))
LIST, NUMBER, MM, THREAD_PID = 0x20, 0x60, 0x68, 0x70
SYMBOLS = [sym("init_task", INIT, "D"), sym("vm_list", VM_LIST, "d", "kvm")]


class Offsets:
    def member(self, structure: str, path: str) -> object:
        known = {"pid": NUMBER, "mm": MM, "thread_pid": THREAD_PID}
        return type("Member", (), {"offset": known.get(path, LIST if structure == "task_struct" else 0x10)})


@pytest.fixture(autouse=True)
def _offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeMachine, "btf", lambda *_: Offsets())


def layout(path: Path) -> Ram:
    """init_task, task 7, task 8; a machine that belongs to 8."""
    ram = Ram(path / "ram")
    ram.page(INIT, bytes(LIST) + pointers(ONE + LIST, TWO + LIST))
    ram.page(VM_LIST, pointers(KVM + 0x800, KVM + 0x800))
    for task, number, following, previous in ((ONE, 7, TWO, INIT), (TWO, 8, INIT, ONE)):
        at = task - HEAP
        ram.data[at + LIST : at + LIST + 16] = pointers(following + LIST, previous + LIST)
        struct.pack_into("<i", ram.data, at + NUMBER, number)
        ram.data[at + MM : at + MM + 16] = pointers(0xABC0 + number, PIDS + 0x100 * number)
        ram.data[PIDS - HEAP + 0x100 * number + 0x10 :][:24] = pointers(task, task, task)
        struct.pack_into("<3Q", ram.data, PIDS - HEAP + 0x100 * number + 0x10, 1, 2, 3)
    ram.data[KVM - HEAP + 0x30 : KVM - HEAP + 0x38] = pointers(0xABC8)
    ram.data[KVM - HEAP + 0x800 : KVM - HEAP + 0x810] = pointers(VM_LIST, VM_LIST)
    return ram


class Host:
    """A host whose counters go up, or stand still."""

    def __init__(self, *, step: int = 1) -> None:
        self.count = 0
        self.step = step

    def __call__(self, command: str) -> str:
        if command.startswith("idle"):
            return "7\n"
        if command.startswith("pidof"):
            return "7 8\n"
        self.count += self.step
        return str(self.count)


def listed(machine: FakeMachine) -> list[int]:
    found: list[int] = []
    at = machine.memory.pointer(VirtAddr(INIT + LIST))
    while at != INIT + LIST:
        found.append(struct.unpack("<i", machine.memory.read(VirtAddr(at - LIST + NUMBER), 4))[0])
        at = machine.memory.pointer(at)
    return found


@pytest.mark.parametrize(("pid_table", "heads"), [(False, (1, 2, 3)), (True, (0, 0, 3))])
def test_a_task_is_hidden_and_runs_on(tmp_path: Path, *, pid_table: bool, heads: tuple[int, ...]) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS, Host()) as machine:
        planted = tasks.hidden(machine, pid_table=pid_table)
        assert planted.values == {"task": ONE, "pid": 7}
        assert listed(machine) == [8]
        assert machine.memory.read(VirtAddr(PIDS + 0x710), 24) == pointers(*heads)


def test_a_task_that_stops_is_told(tmp_path: Path) -> None:
    with (
        fake_machine(layout(tmp_path), SYMBOLS, Host(step=0)) as machine,
        pytest.raises(UsageError, match="no longer runs"),
    ):
        tasks.hidden(machine)


def test_the_owner_of_the_hidden_machine_is_hidden(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS, Host()) as machine:
        planted = tasks.rogue_machine(machine)
        assert planted.values["pid"] == 8
        assert listed(machine) == [7]
        assert machine.memory.read(VM_LIST, 16) == pointers(VM_LIST, VM_LIST)


def test_a_machine_of_somebody_else_is_told(tmp_path: Path) -> None:
    ram = layout(tmp_path)
    ram.data[KVM - HEAP + 0x30 : KVM - HEAP + 0x38] = pointers(1)
    with fake_machine(ram, SYMBOLS, Host()) as machine, pytest.raises(UsageError, match="no process of the range"):
        tasks.rogue_machine(machine)


def test_a_number_that_no_task_has_is_told(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine, pytest.raises(UsageError, match="has no process 9"):
        tasks.task_of(machine, 9)


def test_a_task_list_that_goes_in_circles_ends(tmp_path: Path) -> None:
    ram = layout(tmp_path)
    ram.data[0x60000 + LIST : 0x60008 + LIST] = pointers(ONE + LIST)
    with fake_machine(ram, SYMBOLS) as machine, pytest.raises(UsageError, match="has no process 8"):
        tasks.task_of(machine, 8)
