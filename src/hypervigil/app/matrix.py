"""The matrix: every scenario of the range on every kernel, judged, and compared with the truth about it.

A tampering is caught when the verdict is `violated`, only by checks that its scenario names, and violations name what
was altered: by what it is called and by its address, as the truth has them. A clean or legitimate host passes when
nothing is violated and at least 95 of 100 applicable checks decide; it is judged with the kernel's packages, so that
every check applies. A tampering is judged with them only where its scenario says that nothing else shows it.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from hypervigil.app.integrity import Options, integrity
from hypervigil.app.sources import open_source
from hypervigil.core.errors import UsageError
from hypervigil.core.finding import Verdict, Violation
from hypervigil.core.report import Report
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.images import Format
from hypervigil.lab.kernels import Kernel
from hypervigil.lab.produce import produce
from hypervigil.lab.scenarios import Named, Scenario
from hypervigil.lab.truth import Planted, Truth

ENOUGH_DECIDED = 0.95
"""Share of applicable checks that must decide on a sound host."""

Progress = Callable[[str], None]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario on one kernel.

    Attributes:
        outcome: ``caught``, ``passed``, ``not applicable``, or ``wrong``.
        why: for `wrong` and `not applicable`, the reason; for `passed`, the undecided checks.
        checks: the checks that were violated.
        decided: share of applicable checks that decided.
        seconds: wall time of the verdict, interpreter start not counted.
        qemu: version of the QEMU that emulated the host; empty if none did.
    """

    scenario: str
    kind: str
    release: str
    outcome: str
    why: str = ""
    checks: tuple[str, ...] = ()
    decided: float = 0.0
    seconds: float = 0.0
    qemu: str = ""


def run_matrix(
    kernels: Iterable[Kernel], scenarios: tuple[Scenario, ...], directory: Path, cache: Path, progress: Progress
) -> Iterator[Cell]:
    """Produce and judge every scenario on every kernel; images are deleted again when they gave what they should."""
    for kernel in kernels:
        for scenario in scenarios:
            yield _cell(scenario, kernel, directory / kernel.release, cache, progress)


def _cell(scenario: Scenario, kernel: Kernel, directory: Path, cache: Path, progress: Progress) -> Cell:
    try:
        made = produce(scenario, kernel, directory, (Format.RAW,), cache, progress)
    except NotApplicable as fault:
        return _unmade(scenario, kernel, "not applicable", str(fault))
    except UsageError as fault:
        return _unmade(scenario, kernel, "wrong", f"it could not be made: {fault}")
    image = made.images[Format.RAW]
    progress(f"judging {scenario.name} on {kernel.release}")
    debs = kernel.debs if scenario.packages or scenario.kind != "tampering" else ()
    options = Options(references=tuple((deb.name, deb.read_bytes()) for deb in debs))
    report, seconds = judge_image(image, options)
    cell = compare(scenario, made.truth, report, seconds)
    if cell.outcome != "wrong":
        image.unlink()
    return cell


def _unmade(scenario: Scenario, kernel: Kernel, outcome: str, why: str) -> Cell:
    return Cell(scenario=scenario.name, kind=scenario.kind, release=kernel.release, outcome=outcome, why=why)


def judge_image(image: Path, options: Options = Options()) -> tuple[Report, float]:  # noqa: B008 - immutable
    """Judge one image, and say how long it took."""
    began = time.monotonic()
    with open_source(str(image)) as source:
        report = integrity(source, options, lambda _what, _done, _total: None).report
    return report, time.monotonic() - began


def compare(scenario: Scenario, truth: Truth, report: Report, seconds: float) -> Cell:
    """Compare a report with the truth about its image."""
    violated = tuple(f.check for f in report.findings if f.verdict is Verdict.VIOLATED)
    coverage = report.coverage
    decided = coverage.decided / coverage.applicable if coverage.applicable else 0.0
    why = _tampered(scenario, truth, report) if scenario.kind == "tampering" else _sound(report, violated, decided)
    right = "caught" if scenario.kind == "tampering" else "passed"
    if not why and right == "passed":
        undecided = "; ".join(f"{u.check}: {u.why}" for u in coverage.undecided)
        return _made(scenario, truth, right, undecided, violated, decided, seconds)
    return _made(scenario, truth, "wrong" if why else right, why, violated, decided, seconds)


def _made(
    scenario: Scenario,
    truth: Truth,
    outcome: str,
    why: str,
    checks: tuple[str, ...],
    decided: float,
    seconds: float,
) -> Cell:
    return Cell(
        scenario=scenario.name,
        kind=scenario.kind,
        release=truth.release,
        outcome=outcome,
        why=why,
        checks=checks,
        decided=round(decided, 3),
        seconds=round(seconds, 2),
        qemu=truth.qemu,
    )


def _tampered(scenario: Scenario, truth: Truth, report: Report) -> str:
    """Why a tampered image was not judged as it should be; empty if it was."""
    violated = {f.check for f in report.findings if f.verdict is Verdict.VIOLATED}
    if not violated:
        return f"the verdict is {report.verdict}, nothing is violated"
    others = sorted(violated - set(scenario.violates))
    if others:
        return f"violated beyond what the scenario names: {', '.join(others)}"
    if truth.planted is None:
        return "the scenario planted nothing"
    violations = [v for f in report.findings for v in f.violations]
    return "; ".join(filter(None, (unnamed(names, truth.planted, violations) for names in scenario.names)))


def unnamed(names: Named, planted: Planted, violations: Iterable[Violation]) -> str:
    """What no violation names as it should, object and address; empty if one does."""
    first = planted.changes[0].object
    told = names.object.format_map({**planted.values, "object": first, "function": re.split("[ +]", first)[0]})
    wanted = re.compile(".*".join(map(re.escape, told.split("*"))))
    if names.at:
        places = [(planted.values[names.at], 1)]
    else:
        places = [(int(c.address), max(1, len(c.after) // 2)) for c in planted.changes if c.address != planted.stub]
    for violation in violations:
        at = violation.address
        if at is not None and wanted.fullmatch(violation.object) and any(p <= at < p + size for p, size in places):
            return ""
    return f"no violation names {told} at {' or '.join(f'{place:#x}' for place, _ in places)}"


def _sound(report: Report, violated: tuple[str, ...], decided: float) -> str:
    if violated:
        messages = "; ".join(v.message for f in report.findings for v in f.violations)[:300]
        return f"{', '.join(violated)} violated: {messages}"
    if decided < ENOUGH_DECIDED:
        undecided = "; ".join(f"{u.check}: {u.why}" for u in report.coverage.undecided)
        return f"only {decided:.0%} of the checks decide: {undecided}"
    return ""


def page(cells: list[Cell], made: str) -> str:
    """The matrix as a page of the documentation (Markdown).

    Args:
        cells: the results.
        made: when and with what it was made, in words.
    """
    releases = sorted({c.release for c in cells}, key=_by_version)
    by_place = {(c.scenario, c.release): c for c in cells}
    lines = [
        "# What is found on which kernel",
        "",
        "Generated by `make lab-matrix`. Each cell is a real KVM host in emulation with a running nested guest: the",
        "violated checks and the seconds that the verdict took. Hosts that begin alike go on from one boot. Sound",
        "hosts, and the tamperings that their scenario says nothing else shows, are judged with the kernel's packages,",
        "which takes some seconds more.",
        "",
        made,
        "",
    ]
    for kind, title in (
        ("tampering", "Tampering"),
        ("legitimate", "Legitimate modifications"),
        ("clean", "Clean hosts"),
    ):
        names = sorted({c.scenario for c in cells if c.kind == kind})
        if names:
            lines += [f"## {title}", "", f"| scenario | {' | '.join(releases)} |", f"|---|{'---|' * len(releases)}"]
            lines += [f"| {n} | {' | '.join(_shown(by_place.get((n, r))) for r in releases)} |" for n in names]
            lines.append("")
    left_out = sorted({(c.scenario, c.why) for c in cells if c.outcome == "not applicable"})
    if left_out:
        lines += ["## Why some do not apply", "", *(f"- {name}: {why}" for name, why in left_out), ""]
    return "\n".join(lines)


def _by_version(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.partition("-")[0].partition("+")[0].split(".") if part.isdigit())


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return "not run"
    if cell.outcome == "not applicable":
        return "n/a"
    if cell.outcome == "wrong":
        return f"**wrong**: {cell.why}".replace("|", "/")
    linked = " ".join(f"[{check}](checks/{check.lower()}.md)" for check in cell.checks)
    return f"{linked or f'nothing violated, {cell.decided:.0%} decided'} ({cell.seconds:.1f}\N{NO-BREAK SPACE}s)"
