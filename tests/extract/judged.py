"""Judging a small host that a test has altered."""

from hypervigil.app.judging import Settings, judge_memory
from hypervigil.core.evidence import Evidence
from hypervigil.core.finding import Finding, Verdict, Violation
from hypervigil.core.report import Report
from hypervigil.extract.loading import Subject
from hypervigil.linux.census import Census
from hypervigil.memory.reader import Reader
from tests.linux.host_builder import system_of
from tests.linux.kernel_builder import KernelImage

SETTINGS = Settings("integrity", "host.raw", "default", "2026-01-31T12:00:00Z")


def evidence(_chunks: tuple[int, ...]) -> Evidence:
    return Evidence(id="memory", kind="memory/raw", name="host.raw", size=1)


def judged(image: KernelImage, memory: Reader | None = None) -> Report:
    """The report on a host; no mistake of ours may have been made."""
    found = judge_memory(memory or image.raw(), evidence, SETTINGS)
    assert found.faults == ()
    return found.report


def finding(report: Report, check: str) -> Finding:
    return next(f for f in report.findings if f.check == check)


def violated(report: Report) -> dict[str, tuple[Violation, ...]]:
    """Violations by the check that found them."""
    return {f.check: f.violations for f in report.findings if f.verdict is Verdict.VIOLATED}


def subject(image: KernelImage, memory: Reader | None = None) -> Subject:
    """What extractors are given."""
    system = system_of(image, memory)
    return Subject(system, Census(system))
