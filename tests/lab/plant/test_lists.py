from pathlib import Path
from types import SimpleNamespace

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


def test_the_newest_machine_is_taken_off_and_points_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    types = SimpleNamespace(member=lambda *path: SimpleNamespace(offset=0x60) if path == ("kvm", "vm_list") else None)
    monkeypatch.setattr(FakeMachine, "btf", lambda _machine, module: types if module == "kvm" else None)
    with fake_machine(layout(tmp_path), SYMBOLS) as machine:
        planted = lists.vm(machine)
        assert planted.values == {"machine": ONE - 0x60}
        assert chain(machine, HEADS) == [TWO]
        assert machine.memory.read(ONE, 16) == pointers(ONE, ONE)


def test_without_types_of_modules_the_machine_begins_where_its_memory_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def btf(_machine: FakeMachine, module: str) -> None:
        raise UsageError(f"no types of {module}")

    monkeypatch.setattr(FakeMachine, "btf", btf)
    monkeypatch.setattr(lists, "mapped_before", lambda _machine, end: bytes(end % PAGE_SIZE + PAGE_SIZE))
    ram = layout(tmp_path)
    with fake_machine(ram, SYMBOLS) as machine:
        assert lists.vm(machine).values == {"machine": ONE - PAGE_SIZE}


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


def test_a_hook_leads_into_a_module_that_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ram = layout(tmp_path)
    text, table = VirtAddr(MODULE + 4 * PAGE_SIZE), VirtAddr(MODULE + 5 * PAGE_SIZE)
    ram.page(text, b"\x90", executable=True)
    ram.page(table, pointers(text))
    more = [
        sym("handler", text, module="dummy"),
        sym("table", table, "d", "kvm"),
        sym("end", table + 8, "d", "kvm"),
    ]
    monkeypatch.setattr(lists, "without_module", lambda *_: [])
    monkeypatch.setattr(FakeMachine, "btf", lambda *_: Offsets())
    ram.data[0x65000:0x65010] = pointers(MODULE + 0x80, MODULE + 0x80)
    ram.page(MODULE, pointers(0, HEADS + 16, HEADS + 16).ljust(0x80, b"\0") + pointers(HEAP + 0x65000, HEAP + 0x65000))
    with fake_machine(ram, SYMBOLS + more) as machine:
        planted = lists.module_hook(machine, name="dummy", table=["table"], function=["handler"])
        assert machine.memory.pointer(table) == planted.stub
        assert planted.stub is not None
        assert text < planted.stub < text + PAGE_SIZE
        assert chain(machine, VirtAddr(HEADS + 16)) == []
        assert planted.changes[-1].object == "stub"


class Offsets:
    def member(self, *_: str) -> object:
        return type("Member", (), {"offset": 0x80})
