"""The report: the one document that renderers, the console and re-verification read.

It holds nothing that differs between two runs over the same evidence: no durations, no names of our machine,
everything sorted. Disassembly, maps and excerpts are computed during extraction and travel in it.
"""

import msgspec

from hypervigil.core.check import Check
from hypervigil.core.evidence import Evidence, Span
from hypervigil.core.facts import Gap
from hypervigil.core.finding import Finding, Verdict, worst

SCHEMA_VERSION = "1.0"
"""Version of the report's JSON form; the first number changes when a reader would break."""


class Property(msgspec.Struct, frozen=True, order=True):
    """A named value of the system under examination, such as its kernel release."""

    name: str
    value: str


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A place that might have described the kernel, with the reason why it was kept or rejected.

    Attributes:
        what: the kind of description, such as ``VMCOREINFO``.
        where: where it stands, in words (physical address, offset).
        kept: whether the run relied on it.
        reason: why, in words.
    """

    what: str
    where: str
    kept: bool
    reason: str


class Line(msgspec.Struct, frozen=True):
    """One line of a disassembly: address, bytes as hexadecimal digits, text."""

    address: int
    bytes: str
    text: str


class Exhibit(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a violation cites, as they stand in the evidence.

    Attributes:
        check: the check whose violation shows it.
        violation: index of the violation in its finding.
        title: what it is.
        address: virtual address of the first byte, or None if only the evidence's offset is known.
        spans: where the bytes stand in the evidence.
        found: the bytes, as hexadecimal digits; empty if they cannot be read (`note` says why).
        expected: what should stand there, as hexadecimal digits; empty if that is not known.
        after: disassembly of `found`, empty for data.
        before: disassembly of `expected`.
        note: what limits this exhibit.
    """

    check: str
    violation: int
    title: str
    address: int | None
    spans: tuple[Span, ...]
    found: str = ""
    expected: str = ""
    after: tuple[Line, ...] = ()
    before: tuple[Line, ...] = ()
    note: str = ""


class Region(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the memory map that the report draws: half-open ``[start, end)``, virtual."""

    start: int
    end: int
    owner: str
    kind: str
    writable: bool = False


class CheckPage(msgspec.Struct, frozen=True, kw_only=True):
    """What the report says of a check beside its finding, so that a reader needs nothing else."""

    check: str
    name: str
    rationale: str
    remedy: str
    false_positives: str
    cannot_see: str
    standards: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


class Undecided(msgspec.Struct, frozen=True, order=True):
    """A check that gave neither `holds` nor `violated`, and why."""

    check: str
    why: str


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How much could be decided: `decided` of `applicable` checks."""

    decided: int
    applicable: int
    not_applicable: int
    undecided: tuple[Undecided, ...] = ()


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, in a form that can be asked again.

    Attributes:
        tool_version: version of Hypervigil.
        command: the use-case, such as ``integrity``.
        target: the target as named, without its folder.
        profile: which checks are required.
        as_of: time of judgement, ISO 8601, part of the recorded evidence.
        data_sets: name and version of every table that took part.
    """

    tool_version: str
    command: str
    target: str
    profile: str
    as_of: str
    data_sets: tuple[Property, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a run has to say.

    `verdict` is over the findings that the profile requires, and over every violation.
    """

    schema_version: str = SCHEMA_VERSION
    run: RunRecord
    verdict: Verdict
    exit_status: int
    coverage: Coverage
    evidence: tuple[Evidence, ...]
    subject: tuple[Property, ...]
    candidates: tuple[Candidate, ...]
    findings: tuple[Finding, ...]
    exhibits: tuple[Exhibit, ...] = ()
    memory_map: tuple[Region, ...] = ()
    checks: tuple[CheckPage, ...] = ()
    limits: tuple[str, ...] = ()


_EXIT = {
    Verdict.HOLDS: 0,
    Verdict.VIOLATED: 1,
    Verdict.UNKNOWN: 3,
    Verdict.INCOMPLETE: 3,
    Verdict.NOT_APPLICABLE: 3,
}


def overall(findings: tuple[Finding, ...]) -> tuple[Verdict, int]:
    """The verdict over all findings and its exit status: 0 holds, 1 violated, 3 not fully seen."""
    if any(f.verdict is Verdict.VIOLATED for f in findings):
        return Verdict.VIOLATED, 1
    verdict = worst([f.verdict for f in findings if f.required])
    return verdict, _EXIT[verdict]


def coverage_of(findings: tuple[Finding, ...]) -> Coverage:
    """Count what was decided, and name what was not with its reason."""
    applicable = [f for f in findings if f.verdict is not Verdict.NOT_APPLICABLE]
    undecided = [f for f in applicable if f.verdict in {Verdict.UNKNOWN, Verdict.INCOMPLETE}]
    return Coverage(
        decided=len(applicable) - len(undecided),
        applicable=len(applicable),
        not_applicable=len(findings) - len(applicable),
        undecided=tuple(sorted(Undecided(f.check, f.why or _gaps(f.gaps)) for f in undecided)),
    )


def _gaps(gaps: tuple[Gap, ...]) -> str:
    shown = "; ".join(str(gap) for gap in gaps[:3])
    return shown if len(gaps) <= 3 else f"{shown}; and {len(gaps) - 3} more"  # noqa: PLR2004 - three fit a line


def page_of(subject: Check) -> CheckPage:
    """The part of a check's metadata that travels in a report."""
    about = subject.about
    return CheckPage(
        check=subject.id,
        name=subject.name,
        rationale=about.rationale,
        remedy=about.remedy,
        false_positives=about.false_positives,
        cannot_see=about.cannot_see,
        standards=about.standards,
        sources=about.sources,
    )
