from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from hypervigil.app import demo
from hypervigil.app.demo import demonstrate
from hypervigil.core.units import VirtAddr
from hypervigil.lab.truth import Change, Planted
from tests.extract.tamperings import operation
from tests.linux.host_builder import host
from tests.linux.kernel_builder import RELEASE, KernelImage


class Machine:
    """A host whose memory is an image; a stand-in for an emulator."""

    def __init__(self, image: KernelImage) -> None:
        self.image = image
        self.qmp = None
        self.place = SimpleNamespace(ram=None)
        self.checked = False

    @contextmanager
    def frozen(self) -> Iterator[None]:
        yield

    def check_alive(self) -> None:
        self.checked = True


def test_a_host_is_judged_before_and_after_its_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(host())
    planted: list[int] = []

    @contextmanager
    def boot(*_: object, **__: object) -> Iterator[Machine]:
        yield machine

    def save(_qmp: object, _ram: object, path: Path, _form: object) -> None:
        path.write_bytes(machine.image.data)

    def plant(given: Machine, _scenario: object) -> Planted:
        planted.append(operation(given.image))
        return Planted((Change("kvm_x86_ops.handle_exit", VirtAddr(planted[0]), "", "00"),))

    monkeypatch.setattr(demo, "fetch", lambda *_: SimpleNamespace(release=RELEASE))
    monkeypatch.setattr(demo, "boot", boot)
    monkeypatch.setattr(demo, "save", save)
    monkeypatch.setattr(demo, "plant", plant)
    said: list[str] = []
    shown = demonstrate(tmp_path / "demo", tmp_path, said.append)
    assert (shown.clean.verdict, shown.hooked.verdict) == ("incomplete", "violated")
    assert shown.planted == (("kvm_x86_ops.handle_exit", planted[0]),)
    assert "handle_exit" in shown.page.read_text()
    assert machine.checked
    assert any(RELEASE in line for line in said)
    assert [line.split()[0] for line in said if "after" in line] == ["incomplete", "violated"]
