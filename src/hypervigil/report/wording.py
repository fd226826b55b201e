"""The sentences that every format uses, so that none says more than another.

A sentence that states a verdict also states what it could not see: "no violation" never stands alone.
"""

from hypervigil.core.finding import Finding, Observation, Severity, Verdict, Violation
from hypervigil.core.report import CheckPage, Report

_RANK = {
    Verdict.VIOLATED: 0,
    Verdict.UNKNOWN: 1,
    Verdict.INCOMPLETE: 1,
    Verdict.HOLDS: 2,
    Verdict.NOT_APPLICABLE: 3,
}
_SEVERITIES = (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW)
_SCALE = 1024


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number and its noun: ``1 check``, ``2 checks``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def hexadecimal(address: int) -> str:
    """An address as every format spells it: ``0x`` and lower case digits, no padding."""
    return f"{address:#x}"


def bytesize(size: int) -> str:
    """A size in binary units, exact below 1 KiB: ``512.0 MiB (536870912 bytes)``."""
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < _SCALE:
            break
        value, unit = value / _SCALE, larger
    return counted(size, "byte") if unit == "bytes" else f"{value:.1f} {unit} ({size} bytes)"


def ranked(findings: tuple[Finding, ...]) -> list[Finding]:
    """Findings in the order in which a responder reads them.

    Verdict (`unknown` and `incomplete` alike), what the profile requires first, severity, id.
    """
    return sorted(
        findings,
        key=lambda f: (_RANK[f.verdict], not f.required, _SEVERITIES.index(f.severity), f.check),
    )


def of(report: Report, *verdicts: Verdict) -> list[Finding]:
    """The findings with one of `verdicts`, ranked."""
    return [f for f in ranked(report.findings) if f.verdict in verdicts]


def pages(report: Report) -> dict[str, CheckPage]:
    """The check pages that travel in the report, by the check's id."""
    return {page.check: page for page in report.checks}


def headline(report: Report) -> str:
    """The verdict as one sentence that begins with the target: how much is wrong and how bad, or what is missing."""
    target = report.run.target
    required = [f for f in report.findings if f.required and f.verdict is not Verdict.NOT_APPLICABLE]
    match report.verdict:
        case Verdict.VIOLATED:
            return f"{target} is not what it should be: {_damage(report)}"
        case Verdict.HOLDS:
            return f"{target} shows no violation, and {_all_hold(len(required))}"
        case Verdict.NOT_APPLICABLE:
            return f"{target} could not be judged: no check applies; this is not a clean result"
        case Verdict.UNKNOWN | Verdict.INCOMPLETE if required:
            open_checks = [f for f in required if f.verdict in {Verdict.UNKNOWN, Verdict.INCOMPLETE}]
            return (
                f"{target} could not be cleared: {len(open_checks)} of {counted(len(required), 'required check')} "
                "could not be decided; no check is violated, and this is not a clean result"
            )
        case Verdict.UNKNOWN | Verdict.INCOMPLETE:
            return f"{target} could not be judged: no required check applies; this is not a clean result"


def coverage(report: Report) -> str:
    """How much was seen: ``61 of 64 applicable checks could be decided; 12 do not apply``."""
    seen = report.coverage
    decided = f"{seen.decided} of {counted(seen.applicable, 'applicable check')} could be decided"
    if not seen.not_applicable:
        return decided
    return f"{decided}; {seen.not_applicable} {'does' if seen.not_applicable == 1 else 'do'} not apply"


def foundations(report: Report) -> tuple[str, ...]:
    """The descriptions that were trusted to reach the verdict, sorted; never empty, since words say it if none was.

    Of a violated report those of its violated checks; otherwise those of every check that was decided.
    """
    bearing = of(report, Verdict.VIOLATED) or of(report, Verdict.HOLDS)
    if not bearing:
        return ("nothing, since no check was decided",)
    trusted = {claim for finding in bearing for claim in finding.rests_on}
    return tuple(sorted(trusted)) or ("the bytes of the evidence alone",)


def one_line(report: Report) -> str:
    """The whole answer on one line: verdict, sentence, coverage."""
    return f"{report.verdict}: {headline(report)}; {coverage(report)}"


def place(said: Violation | Observation) -> str:
    """The thing spoken of and its address, as far as either is known."""
    if said.address is None:
        return said.object
    where = hexadecimal(said.address)
    return f"{said.object} at {where}" if said.object else where


def reasons(finding: Finding) -> tuple[str, ...]:
    """Why a finding is not decided, or does not apply: its reason, or each gap in what it read."""
    if finding.why:
        return (finding.why,)
    return tuple(str(gap) for gap in finding.gaps) or ("no reason was recorded",)


def _damage(report: Report) -> str:
    violated = of(report, Verdict.VIOLATED)
    count = sum(len(f.violations) for f in violated)
    worst = min((f.severity for f in violated), key=_SEVERITIES.index, default=None)
    told = f"{counted(count, 'violation')} in {counted(len(violated), 'check')}"
    return told if worst is None else f"{told}, the worst {worst}"


def _all_hold(count: int) -> str:
    return "the only required check holds" if count == 1 else f"all {count} required checks hold"
