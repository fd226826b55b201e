import struct
from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.plant import lists
from hypervigil.lab.plant.change import put_all
from tests.lab.fakes import HEAP, KERNEL, MODULE, FakeMachine, Ram, fake_machine, pointers, sym

HEADS = VirtAddr(KERNEL + PAGE_SIZE)
ONE, TWO = VirtAddr(HEAP + 0x60000), VirtAddr(HEAP + 0x61000)
SYMBOLS = [
    sym("page_offset_base", KERNEL, "d"),
    sym("vm_list", HEADS, "d", "kvm"),
    sym("modules", HEADS + 16, "d"),
    sym("ftrace_ops_list", HEADS + 32, "d"),
    sym("ftrace_list_end", HEADS + 48, "d"),
    sym("__this_module", MODULE, "d", "dummy"),
]


def layout(path: Path) -> Ram:
    """vm_list has two entries, modules one, ftrace_ops_list one."""
    ram = Ram(path / "ram")
    ram.page(KERNEL, pointers(HEAP))
    heads = pointers(ONE, TWO, MODULE + 8, MODULE + 8, TWO + 0x100, 0, 0, 0)
    ram.page(HEADS, heads)
    ram.page(MODULE, pointers(0, HEADS + 16, HEADS + 16))
    ram.data[0x60000:0x60010] = pointers(TWO, HEADS)
    ram.data[0x61000:0x61010] = pointers(HEADS, ONE)
    ram.data[0x61100:0x61110] = pointers(MODULE, HEADS + 48)
    return ram


def chain(machine: FakeMachine, head: VirtAddr) -> list[int]:
    found: list[int] = []
    at = machine.memory.pointer(head)
    while at != head:
        found.append(at)
        at = machine.memory.pointer(at)
    return found


def test_the_newest_machine_is_taken_off_and_points_to_itself(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        planted = lists.vm(machine)
        assert planted.values["entry"] == ONE
        assert chain(machine, HEADS) == [TWO]
        assert machine.memory.read(ONE, 16) == pointers(ONE, ONE)


def test_without_machines_there_is_nothing_to_hide(tmp_path: Path) -> None:
    ram = layout(tmp_path)
    ram.page(HEADS, pointers(HEADS, HEADS))
    with fake_machine(ram, SYMBOLS) as machine, pytest.raises(NotApplicable, match="no virtual machine"):
        lists.vm(machine)


def test_what_is_on_no_list_is_told(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine, pytest.raises(UsageError, match="is not on a list"):
        put_all(machine, lists.unlink(machine, "thing", VirtAddr(HEAP + 0x70000)))


def test_a_module_is_gone_from_the_list_and_from_what_the_host_shows(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS, lambda _: "kvm\n") as machine:
        lists.module(machine, name="dummy")
        assert chain(machine, VirtAddr(HEADS + 16)) == []


def test_a_module_that_the_host_still_shows_is_told(tmp_path: Path) -> None:
    with (
        fake_machine(layout(tmp_path), SYMBOLS, lambda _: "kvm\ndummy\n") as machine,
        pytest.raises(UsageError, match=r"still in /proc/modules"),
    ):
        lists.module(machine, name="dummy")


def test_the_first_tracer_is_taken_off(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        assert lists.ftrace_ops(machine, traced="vm_list").values["ops"] == TWO + 0x100
        assert machine.memory.pointer(VirtAddr(HEADS + 32)) == HEADS + 48
        with pytest.raises(NotApplicable, match="no ftrace ops"):
            lists.ftrace_ops(machine, traced="vm_list")


COMM, PID, TASKS, THREAD_PID = 0x40, 0x60, 0x20, 0x70


class Offsets:
    def member(self, structure: str, path: str) -> object:
        known = {"comm": COMM, "pid": PID, "thread_pid": THREAD_PID}
        offset = known.get(path, TASKS if structure == "task_struct" else 0x10)
        return type("Member", (), {"offset": offset})


@pytest.mark.parametrize("pid_table", [False, True])
def test_a_task_is_found_by_name_and_number_and_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, pid_table: bool
) -> None:
    ram = layout(tmp_path)
    names: list[str] = []

    def host(command: str) -> str:
        if command.startswith("idle"):
            names.append(command.split()[1])
            comm = names[0].encode().ljust(16, b"\0")
            with ram.path.open("r+b") as file:
                for at, data in [
                    (0x62000 + COMM, comm),  # another place with the same name
                    (0x60000 + COMM, comm),
                    (0x60000 + PID, struct.pack("<i", 77)),
                    (0x60000 + THREAD_PID, pointers(HEAP + 0x63000)),
                    (0x60000 + TASKS, pointers(HEAP + 0x64000, HEAP + 0x64000)),
                    (0x64000, pointers(ONE + TASKS, ONE + TASKS)),
                    (0x63010, pointers(1, 2, 3)),
                ]:
                    file.seek(at)
                    file.write(data)
            return "77\n"
        names.append("tick")
        return str(len(names))

    monkeypatch.setattr("time.sleep", lambda _: None)
    with fake_machine(ram, SYMBOLS, host) as machine:
        monkeypatch.setattr(type(machine), "btf", lambda *_: Offsets())
        planted = lists.task(machine, pid_table=pid_table)
        assert planted.values == {"task": ONE, "pid": 77}
        assert chain(machine, VirtAddr(HEAP + 0x64000)) == []
        rest = pointers(0, 0, 3) if pid_table else pointers(1, 2, 3)
        assert machine.memory.read(VirtAddr(HEAP + 0x63010), 24) == rest
