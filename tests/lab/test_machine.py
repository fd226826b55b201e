from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.core.units import VirtAddr
from hypervigil.lab import machine as module
from hypervigil.lab.agent import Output
from hypervigil.lab.kernels import Kernel, fetch
from hypervigil.lab.machine import Machine, attach, boot
from hypervigil.lab.plant.pointers import table_slot
from hypervigil.lab.qemu import Place
from hypervigil.lab.scenarios import Host
from hypervigil.lab.store import cache_directory
from tests.lab.fakes import HEAP, KERNEL, FakeMachine, Ram, fake_machine, pointers, sym


class Real(FakeMachine):
    """A fake machine with the real machine's own behaviour where it can be had."""

    said = b""
    alive = True
    learn_symbols = Machine.learn_symbols
    check_sound = Machine.check_sound
    counts = Machine.counts

    @property
    def log(self) -> bytes:
        return self.said


@contextmanager
def real(tmp_path: Path, script: object) -> Iterator[Real]:
    ram = Ram(tmp_path / "ram")
    ram.page(KERNEL, pointers(7))
    with fake_machine(ram, [sym("x", HEAP)]) as fake:
        machine = Real(fake.memory, [], script)  # type: ignore[arg-type]  # a function of the test
        machine.place = Place(0, tmp_path, tmp_path / "ram", machine.kernel, machine.host)
        yield machine


def test_a_failed_command_inside_is_told(tmp_path: Path) -> None:
    with real(tmp_path, str) as machine:
        assert machine.text("hello") == "hello"
        machine.agent.sh = lambda *_: Output(2, b"no such thing\n")  # type: ignore[method-assign]  # a failing host
        with pytest.raises(UsageError, match="inside the host: x: no such thing"):
            machine.text("x")


@pytest.mark.parametrize(
    "line",
    [
        b"[ 1.0] Kernel panic - not syncing: x",
        b"[ 1.0] Oops: 0000 [#1]",
        b"[ 1.0] BUG: unable to handle page fault",
        b"[ 1.0] WARNING: CPU: 0 PID: 1 at x",
        b"[ 1.0] WARNING: kernel/x.c:12 at f+0x1",
    ],
)
def test_a_host_that_complains_is_not_sound(tmp_path: Path, line: bytes) -> None:
    with real(tmp_path, str) as machine:
        machine.said = b"fine\n" + line + b"\nmore"
        with pytest.raises(UsageError, match="the emulated host failed"):
            machine.check_sound()


def test_advice_about_the_processor_is_no_complaint_but_the_end_of_qemu_is(tmp_path: Path) -> None:
    with real(tmp_path, str) as machine:
        machine.said = b"SRSO: WARNING: See https://kernel.org/doc for mitigation options."
        with pytest.raises(UsageError, match="QEMU has ended"):
            machine.check_sound()


def test_what_nested_guests_did_is_read_while_they_write(tmp_path: Path) -> None:
    with real(tmp_path, lambda _: "vm1 io 5 mmio 4\nvm2\nvm3 io\n") as machine:
        assert machine.counts() == {"vm1": {"io": 5, "mmio": 4}, "vm2": {}, "vm3": {}}


def test_a_guest_that_stands_still_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Real, "check_sound", lambda _: None)
    with real(tmp_path, lambda _: "vm1 io 5\n") as machine, pytest.raises(UsageError, match="stands still"):
        machine.check_alive(timeout=0.01)


def test_page_tables_are_found_from_the_hosts_own_words(tmp_path: Path) -> None:
    top = 0xFFFF_FFFF_8000_0000 + 0x4000
    text = f"{KERNEL:x} D phys_base\n{top:x} D init_top_pgt\n"
    with real(tmp_path, lambda line: "la57\n" if "la57" in line else text) as machine:
        machine.learn_symbols()
        assert (machine.memory.root, machine.memory.levels) == (0x4000 + 7, 5)


class Trial:
    """Boots and resumptions that fail until one does not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, failures: int) -> None:
        self.failures = failures
        self.tried: list[str] = []
        self.folder = folder
        monkeypatch.setattr(module, "_up", lambda _stack, _start, kept: self._try("boot", kept))
        monkeypatch.setattr(module, "_go_on", lambda _stack, _start, kept: self._try("resume", kept))
        monkeypatch.setattr(module, "build_initramfs", lambda *_: folder / "initrd")
        monkeypatch.setattr("hypervigil.lab.snapshot._qemu_version", lambda: "7.2")

    def _try(self, what: str, kept: Path | None) -> None:
        self.tried.append(what)
        if len(self.tried) <= self.failures:
            raise UsageError("stray int3")
        if what == "boot" and kept is not None:
            kept.mkdir(parents=True)
            (kept / "state").touch()
            (kept / "ram.zst").touch()

    def boot(self, *, snapshots: bool = False) -> list[str]:
        """What was told of a boot with at most three tries."""
        said: list[str] = []
        kernel = Kernel("6.1", {}, self.folder, self.folder)
        with boot(kernel, Host(), self.folder, said.append, tries=3, snapshots=snapshots):
            pass
        return said


@pytest.mark.parametrize(("failures", "boots"), [(0, 1), (2, 3)])
def test_a_boot_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failures: int, boots: int) -> None:
    trial = Trial(monkeypatch, tmp_path, failures)
    assert len(trial.boot()) == failures
    assert trial.tried == ["boot"] * boots


def test_the_last_failure_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="stray int3"):
        Trial(monkeypatch, tmp_path, 9).boot()


def test_the_second_host_of_its_kind_goes_on_from_a_snapshot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trial = Trial(monkeypatch, tmp_path, 0)
    trial.boot(snapshots=True)
    trial.boot(snapshots=True)
    trial.boot()
    assert trial.tried == ["boot", "resume", "boot"]


def test_a_snapshot_that_cannot_be_used_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Trial(monkeypatch, tmp_path, 0).boot(snapshots=True)
    trial = Trial(monkeypatch, tmp_path, 1)
    assert "cannot be used: stray int3" in trial.boot(snapshots=True)[0]
    trial.boot(snapshots=True)
    assert trial.tried == ["resume", "boot", "resume"]


@pytest.mark.lab
@pytest.mark.parametrize("how", ["booted", "resumed"])
def test_a_real_host_is_changed_and_lives_on(how: str) -> None:
    cache = cache_directory(None)
    with boot(fetch("6.1", cache, print), Host(), cache, print, snapshots=how == "resumed") as machine:
        banner = machine.symbols.find("linux_banner").address
        assert machine.peek(banner, 14) == machine.memory.read(banner, 14) == b"Linux version "
        planted = table_slot(machine, table=["kvm_x86_ops"], function=["svm_handle_exit", "handle_exit"])
        machine.check_alive()
        assert planted.stub is not None
        assert machine.agent.peek_pointer(planted.changes[0].address) == planted.stub
        machine.close()
        with attach(machine.place) as again:
            again.learn_symbols()
            assert again.memory.pointer(VirtAddr(planted.changes[0].address)) == planted.stub
            again.check_alive()
    assert not machine.place.runs()
    assert not machine.place.ram.exists()
