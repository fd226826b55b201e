from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.lab.agent import Output
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.kernels import Kernel
from hypervigil.lab.plant.packaged import PackagedModule
from tests.lab.fakes import MODULE, FakeMachine, Ram, fake_machine
from tests.lab.objects import Function, module

DATA = module(
    b"\x90" * 16 + b"\xc3" * 16,
    (Function("first", 0, 16), Function("second", 16, 16)),
    {".return_sites": (bytes(8), ((0, 16), (4, 31)))},
)


def with_module(machine: FakeMachine, folder: Path, data: bytes = DATA) -> FakeMachine:
    """The machine, with a kernel whose only module is kvm."""
    (folder / "kernel").mkdir()
    (folder / "kernel" / "kvm.ko").write_bytes(data)
    machine.kernel = Kernel("6.1.0-0-test", {}, folder / "vmlinuz", folder)
    return machine


def host(command: str) -> str:
    return f"{MODULE:#x}\n" if command == "cat /sys/module/kvm/sections/.text" else ""


def test_places_are_where_the_module_was_loaded(tmp_path: Path) -> None:
    with fake_machine(Ram(tmp_path / "ram"), [], host) as machine:
        packaged = PackagedModule(with_module(machine, tmp_path), "kvm")
        assert list(packaged.each_place(".return_sites")) == [(0, MODULE + 16), (4, MODULE + 31)]
        assert packaged.count(".return_sites") == 2
        assert packaged.function("second") == (MODULE + 16, b"\xc3" * 16)


def test_what_the_module_does_not_have_is_told(tmp_path: Path) -> None:
    with fake_machine(Ram(tmp_path / "ram"), [], host) as machine:
        packaged = PackagedModule(with_module(machine, tmp_path), "kvm")
        with pytest.raises(NotApplicable, match=r"kvm has no \.rela__jump_table"):
            list(packaged.each_place("__jump_table"))
        with pytest.raises(NotApplicable, match="no function third"):
            packaged.function("third")


def test_a_host_that_hides_where_the_module_lies_is_told(tmp_path: Path) -> None:
    with fake_machine(Ram(tmp_path / "ram"), []) as machine:
        packaged = PackagedModule(with_module(machine, tmp_path), "kvm")
        machine.agent.sh = lambda *_: Output(1, b"")  # type: ignore[method-assign]  # a host without the file
        with pytest.raises(UsageError, match="does not say where"):
            packaged.base(".text")
