from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.lab import guest
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.guest import altered, build_initramfs, unsigned
from hypervigil.lab.kernels import Kernel
from hypervigil.lab.scenarios import Host
from tests.lab.objects import Function, module
from tests.lab.test_initramfs import unpacked

CODE = bytes.fromhex("554889e5c3")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A kernel with two modules, and programs that need no compiler."""
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "kvm-amd.ko").write_bytes(module(CODE, (Function("load", 0, 5),)) + b"\0depends=kvm\0")
    (tmp_path / "kernel" / "kvm.ko").write_bytes(b"\x7fELF kvm")
    (tmp_path / "kernel" / "dummy.ko").write_bytes(b"\x7fELF dummy")
    monkeypatch.setattr(guest, "_busybox", lambda: b"busybox")
    monkeypatch.setattr(guest, "_compiled", lambda name, _: name.encode())
    return Kernel("6.1.0-0-test", {}, tmp_path / "vmlinuz", tmp_path)


def test_modules_are_loaded_in_order_with_their_options(kernel: Kernel, tmp_path: Path) -> None:
    path = build_initramfs(kernel, Host(modules=("dummy", "kvm-amd npt=0 avic=1")), tmp_path)
    files = {entry.path: entry.data for entry in unpacked(path.read_bytes())}
    assert files["mod/order"] == b"kvm.ko\nkvm_amd.ko npt=0 avic=1\ndummy.ko\n"
    assert files["mod/kvm.ko"] == b"\x7fELF kvm"
    assert files["bin/nest"] == b"nest"
    assert files["init"].startswith(b"#!/bin/busybox sh")


def test_the_same_host_is_packed_once(kernel: Kernel, tmp_path: Path) -> None:
    first = build_initramfs(kernel, Host(), tmp_path)
    assert build_initramfs(kernel, Host(vms=2), tmp_path) == first
    assert build_initramfs(kernel, Host(modules=("dummy",)), tmp_path) != first


def test_a_module_is_altered_in_one_instruction(kernel: Kernel, tmp_path: Path) -> None:
    path = build_initramfs(kernel, Host(trojan="kvm_amd:load"), tmp_path)
    files = {entry.path: entry.data for entry in unpacked(path.read_bytes())}
    before = (kernel.modules / "kernel" / "kvm-amd.ko").read_bytes()
    assert files["mod/kvm_amd.ko"] == before.replace(CODE, bytes.fromhex("55488becc3"))


def test_what_cannot_be_altered_is_told() -> None:
    with pytest.raises(NotApplicable, match="no function other"):
        altered(module(CODE, (Function("load", 0, 5),)), "other")
    with pytest.raises(NotApplicable):
        altered(module(b"\xc3", (Function("load", 0, 1),)), "load")


def test_a_signature_is_cut_off() -> None:
    signature = b"s" * 300
    data = b"\x7fELF" + signature + bytes(8) + (300).to_bytes(4, "big") + b"~Module signature appended~\n"
    assert unsigned(data) == b"\x7fELF"
    assert unsigned(b"\x7fELF") == b"\x7fELF"
    assert unsigned(data[-40:]) == b""


def test_a_missing_busybox_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UsageError, match="apt-get install busybox-static"):
        guest._busybox()


@pytest.mark.lab
def test_every_program_compiles_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "_COMPILE", (*guest._COMPILE, "-Wextra", "-Werror"))
    for name in guest._PROGRAMS:
        assert guest._compiled(name, tmp_path).startswith(b"\x7fELF")
