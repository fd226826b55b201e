from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hypervigil.core.errors import MissingMemory, ProgramError, UsageError
from hypervigil.core.units import VirtAddr
from hypervigil.lab import produce as module
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.images import Format
from hypervigil.lab.kernels import Kernel
from hypervigil.lab.produce import plant, produce, tell
from hypervigil.lab.qemu import Place
from hypervigil.lab.scenarios import Scenario, parse_scenario
from hypervigil.lab.truth import Planted, decode_truth
from tests.lab.fakes import KERNEL, FakeMachine, Ram, fake_machine, sym

KERNEL_6_1 = Kernel("6.1.0-0-test", {"linux-image": "6.1-1"}, Path("vmlinuz"), Path("modules"))
SYMBOLS = [sym("_text", KERNEL, "T"), sym("table", KERNEL, "r"), sym("end", KERNEL + 16, "r")]
FLIP = b"""
title = "a bit flips"
kind = "tampering"
violates = ["KRN-001"]
[host]
setup = ["echo first", "echo second"]
[plant]
how = "pages.const_bytes"
table = ["table"]
offset = 1
flip = 1
"""


class Monitor:
    """QEMU's answers."""

    def execute(self, command: str, **_: object) -> object:
        return {"qemu": {"major": 7, "minor": 2, "micro": 1}, "package": ""} if command == "query-version" else {}


class Range:
    """Boots fake machines; counts them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.boots = 0
        self.failures: list[UsageError] = []
        self.snapshots: list[bool] = []

    @contextmanager
    def boot(self, *_: object, snapshots: bool = False) -> Iterator[FakeMachine]:
        self.boots += 1
        self.snapshots.append(snapshots)
        if self.failures:
            raise self.failures.pop()
        folder = self.folder / f"boot{self.boots}"
        folder.mkdir()
        ram = Ram(folder / "ram")
        ram.page(KERNEL, bytes(32))
        with fake_machine(ram, SYMBOLS, lambda command: "quiet\n" if "cmdline" in command else "") as machine:
            machine.qmp = Monitor()  # type: ignore[assignment]  # stands in for QEMU
            machine.place = Place(0, folder, ram.path, machine.kernel, machine.host)
            yield machine


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Range:
    made = Range(tmp_path)
    monkeypatch.setattr(module, "boot", made.boot)
    return made


def scenario(text: bytes = FLIP) -> Scenario:
    return parse_scenario("flip", text)


def test_a_host_is_set_up_before_it_is_tampered_with(lab: Range) -> None:
    with lab.boot() as machine:
        planted = plant(machine, scenario())
        assert machine.agent.asked == ["echo first", "echo second"]  # type: ignore[attr-defined]  # the fake's
        assert planted is not None
        truth = tell(machine, scenario(), planted)
    assert truth.planted == planted
    assert (truth.kind, truth.violates, truth.qemu, truth.cmdline) == ("tampering", ("KRN-001",), "7.2.1", "quiet")
    assert truth.anchors == {"_text": KERNEL}


def test_images_and_truth_lie_beside_each_other(lab: Range, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = produce(scenario(), KERNEL_6_1, out, (Format.RAW, Format.LIME), tmp_path / "cache", print)
    assert sorted(path.name for path in out.iterdir()) == ["flip.lime", "flip.raw", "flip.truth.json"]
    assert decode_truth(made.truth_path.read_bytes()) == made.truth
    change = made.truth.planted.changes[0] if made.truth.planted else None
    assert change is not None
    assert (change.before, change.after) == ("00", "01")
    assert made.images[Format.RAW].read_bytes() == (tmp_path / "boot1" / "ram").read_bytes()
    assert lab.boots == 1


def test_what_was_made_comes_from_the_cache(lab: Range, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = produce(scenario(), KERNEL_6_1, tmp_path / "a", (Format.RAW,), cache, print)
    again = produce(scenario(), KERNEL_6_1, tmp_path / "b", (Format.RAW,), cache, print)
    assert lab.boots == 1
    assert again.truth == first.truth
    assert again.images[Format.RAW].read_bytes() == first.images[Format.RAW].read_bytes()
    produce(scenario(FLIP + b"# changed\n"), KERNEL_6_1, tmp_path / "c", (Format.RAW,), cache, print)
    produce(scenario(), KERNEL_6_1, tmp_path / "d", (Format.RAW,), cache, print, fresh=True)
    assert lab.boots == 2  # a remark in a scenario makes no other host, `fresh` does
    assert len(list((cache / "images" / KERNEL_6_1.release).iterdir())) == 1


def test_a_further_format_is_of_the_same_boot_as_the_others(lab: Range, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    produce(scenario(), KERNEL_6_1, tmp_path / "a", (Format.RAW,), cache, print)
    made = produce(scenario(), KERNEL_6_1, tmp_path / "b", (Format.RAW, Format.LIME), cache, print)
    assert lab.boots == 2
    assert made.images[Format.LIME].read_bytes()[32:] == made.images[Format.RAW].read_bytes()


def test_a_failure_is_tried_again_and_at_last_told(lab: Range, tmp_path: Path) -> None:
    said: list[str] = []
    lab.failures = [UsageError("odd"), UsageError("odd")]
    produce(scenario(), KERNEL_6_1, tmp_path / "a", (), tmp_path / "cache", said.append)
    assert lab.snapshots == [True, False, False]
    assert sum("trying again: odd" in line for line in said) == 2
    lab.failures = [UsageError("odd")] * 3
    with pytest.raises(UsageError, match="odd"):
        produce(scenario(), KERNEL_6_1, tmp_path / "a", (), tmp_path / "cache", said.append, fresh=True)


def test_what_has_no_place_is_not_tried_again(lab: Range, tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="no symbol nothing"):
        produce(scenario(FLIP.replace(b'"table"', b'"nothing"')), KERNEL_6_1, tmp_path, (), tmp_path / "cache", print)
    assert lab.boots == 1


@pytest.mark.usefixtures("lab")
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "image.raw")

    monkeypatch.setattr(module, "save", full)
    with pytest.raises(UsageError, match=r"image\.raw: No space left on device"):
        produce(scenario(), KERNEL_6_1, tmp_path, (Format.RAW,), tmp_path / "cache", print)
    assert list((tmp_path / "cache" / "images" / KERNEL_6_1.release).iterdir()) == []


def test_an_unknown_planter_is_our_mistake(lab: Range) -> None:
    with lab.boot() as machine, pytest.raises(ProgramError, match="no planter pages"):
        plant(machine, scenario(FLIP.replace(b"const_bytes", b"none")))


def test_memory_that_is_not_there_ends_the_scenario(lab: Range, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> Planted:
        raise MissingMemory(VirtAddr(5), 8, virtual=True)

    monkeypatch.setattr("hypervigil.lab.plant.pages.const_bytes", missing)
    with lab.boot() as machine, pytest.raises(UsageError, match="flip: virtual 0x5"):
        plant(machine, scenario())
