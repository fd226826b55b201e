from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.core.units import VirtAddr
from hypervigil.lab.plant.change import Write, pointer, put, put_all, put_pointer
from hypervigil.lab.truth import Change
from tests.lab.fakes import HEAP, KERNEL, Ram, fake_machine


def test_what_was_there_and_what_is_are_told(tmp_path: Path) -> None:
    ram = Ram(tmp_path / "ram")
    ram.page(KERNEL, b"old")
    with fake_machine(ram, []) as machine:
        assert put(machine, "text", KERNEL, b"new") == Change("text", KERNEL, b"old".hex(), b"new".hex())
        assert put_pointer(machine, "slot", HEAP, 0x1122).after == "2211000000000000"


def test_what_stays_the_same_is_no_change(tmp_path: Path) -> None:
    ram = Ram(tmp_path / "ram")
    ram.page(KERNEL, b"same")
    with fake_machine(ram, []) as machine:
        changes = put_all(machine, [Write("a", KERNEL, b"same"), pointer("b", VirtAddr(KERNEL + 8), 1)])
    assert [change.object for change in changes] == ["b"]


def test_a_host_that_sees_other_bytes_is_told(tmp_path: Path) -> None:
    ram = Ram(tmp_path / "ram")
    ram.page(KERNEL, b"old")
    with fake_machine(ram, []) as machine:
        shown = iter([b"old", b"lie"])
        machine.agent.peek = lambda *_: next(shown)  # type: ignore[method-assign]  # a host that filters what it shows
        with pytest.raises(UsageError, match=r"wrote 6e6577, host reads 6c6965"):
            put(machine, "text", KERNEL, b"new")
