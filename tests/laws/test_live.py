"""A running KVM host is judged from outside while its nested guest works, and its bundle says the same again."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hypervigil.app.bundle import verify_bundle, write_bundle
from hypervigil.app.integrity import Options, Outcome, integrity
from hypervigil.app.sources import open_source
from hypervigil.core.finding import Verdict
from hypervigil.lab.kernels import Kernel
from hypervigil.lab.machine import Machine, boot
from hypervigil.lab.produce import plant
from hypervigil.lab.scenarios import named
from hypervigil.report.json import render

pytestmark = pytest.mark.lab


@contextmanager
def watched(machine: Machine) -> Iterator[list[str]]:
    """What QEMU says of the machine's run state, asked again and again inside the `with`."""
    states: list[str] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            states.append(machine.qmp.execute("query-status")["status"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield states
    finally:
        over.set()
        watcher.join()


def judged(target: str) -> Outcome:
    with open_source(target) as source:
        return integrity(source, Options(as_of="2026-01-01T00:00:00Z"), lambda _what, _done, _total: None)


@pytest.mark.parametrize(
    "kernel", ["6.1", *(pytest.param(name, marks=pytest.mark.matrix) for name in ("5.10", "6.12", "newest"))]
)
def test_a_running_host_is_judged_twice_alike_and_never_pauses(
    kernel: str, lab_kernel: Callable[[str], Kernel], lab_cache: Path, tmp_path: Path
) -> None:
    with boot(lab_kernel(kernel), named("plain").host, lab_cache, print, snapshots=True) as machine:
        before = machine.counts()["vm1"]["io"]
        with watched(machine) as states:
            outcomes = [judged(f"qemu:{target}") for target in (machine.place.pid, machine.place.directory / "qmp2")]
        machine.check_alive()
        assert machine.counts()["vm1"]["io"] > before
    assert len(states) > 2
    assert set(states) == {"running"}
    reports = [outcome.report for outcome in outcomes]
    assert [r.coverage.undecided for r in reports] == [()] * 2
    assert [(r.verdict, r.exit_status) for r in reports] == [(Verdict.HOLDS, 0)] * 2
    for number, outcome in enumerate(outcomes):
        bundle = tmp_path / f"{number}.hvb"
        write_bundle(str(bundle), outcome, Options(as_of=outcome.report.run.as_of), who="a test", how="live")
        again = verify_bundle(str(bundle), "", lambda _what, _done, _total: None)
        assert again.same
        assert render(again.outcome.report) == render(outcome.report)


def test_a_hook_in_a_running_host_is_seen_while_it_runs(lab_kernel: Callable[[str], Kernel], lab_cache: Path) -> None:
    scenario = named("kvm-x86-ops-slot")
    with boot(lab_kernel("6.1"), scenario.host, lab_cache, print, snapshots=True) as machine:
        plant(machine, scenario)
        report = judged(f"qemu:{machine.place.pid}").report
    assert report.verdict is Verdict.VIOLATED
    assert {f.check for f in report.findings if f.verdict is Verdict.VIOLATED} <= set(scenario.violates)
