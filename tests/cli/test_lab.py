import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hypervigil.cli import lab as module
from hypervigil.cli.main import root
from hypervigil.core.errors import UsageError
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.kernels import Kernel
from hypervigil.lab.produce import Production
from hypervigil.lab.scenarios import Scenario, each_scenario
from hypervigil.lab.truth import Truth

KERNEL = Kernel("6.1.0-0-test", {}, Path("vmlinuz"), Path("modules"))
TRUTH = Truth("plain", "t", "clean", (), "6.1", {}, "", "7.2", 256, None, {}, {}, "2026-01-01T00:00:00+00:00")


@pytest.fixture(autouse=True)
def _a_machine_with_all_that_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HYPERVIGIL_LAB", str(tmp_path))
    monkeypatch.setattr(module, "check_needs", lambda: None)
    monkeypatch.setattr(module, "fetch", lambda *_: KERNEL)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(root, ["lab", *arguments])


def test_scenarios_are_listed_with_what_must_be_found() -> None:
    result = run("list")
    assert result.exit_code == 0
    assert "kvm-x86-ops-slot" in result.stdout
    listed = json.loads(run("list", "--json").stdout)
    assert [item["name"] for item in listed] == [scenario.name for scenario in each_scenario()]


def test_each_scenario_of_a_run_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def produce(scenario: Scenario, _: Kernel, directory: Path, *__: object, **___: object) -> Production:
        if scenario.name == "idt-gate":
            raise NotApplicable("no gate")
        if scenario.name == "syscall-slot":
            raise UsageError("no luck")
        return Production({}, directory / f"{scenario.name}.truth.json", TRUTH)

    monkeypatch.setattr(module, "produce", produce)
    result = run("run", "plain", "idt-gate", "-o", str(tmp_path))
    assert result.exit_code == 0
    assert f"{tmp_path}/6.1.0-0-test/plain.truth.json" in result.stdout
    assert "idt-gate\tnot applicable\tno gate" in result.stdout
    failed = run("run", "plain", "syscall-slot", "-o", str(tmp_path))
    assert isinstance(failed.exception, UsageError)
    assert "syscall-slot\tfailed\tno luck" in failed.stdout


def test_an_unknown_scenario_is_told_before_anything_is_made(tmp_path: Path) -> None:
    assert isinstance(run("run", "plain", "none", "-o", str(tmp_path)).exception, UsageError)


def test_without_a_running_machine_there_is_nothing_to_tamper_with(tmp_path: Path) -> None:
    for arguments in (("tamper", "idt-gate"), ("dump", "-o", str(tmp_path / "x"))):
        result = run(*arguments)
        assert isinstance(result.exception, UsageError)
        assert "hypervigil lab up" in str(result.exception)


class Place:
    pid = 7


def test_one_of_several_machines_must_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "each_running", lambda _: iter([Place(), Place()]))
    result = run("tamper", "idt-gate")
    assert "choose one with --pid: 7, 7" in str(result.exception)


def test_a_running_machine_is_tampered_with(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def attach(place: Place) -> Iterator[Place]:
        yield place

    monkeypatch.setattr(module, "each_running", lambda _: iter([Place()]))
    monkeypatch.setattr(module, "attach", attach)
    monkeypatch.setattr(module, "plant", lambda *_: None)
    monkeypatch.setattr(module, "tell", lambda *_: TRUTH)
    assert json.loads(run("tamper", "--pid", "7", "idt-gate").stdout)["scenario"] == "plain"


def test_nothing_is_cleaned_while_a_machine_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x").write_bytes(b"x" * (2 << 20))
    with monkeypatch.context() as patch:
        patch.setattr(module, "each_running", lambda _: iter([Place()]))
        assert "stop it first" in str(run("clean").exception)
    assert run("clean").stdout == "freed 2 MiB\n"
