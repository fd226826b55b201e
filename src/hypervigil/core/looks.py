"""One verdict out of several looks at evidence that changes while it is read.

Two structures that were read at different moments may contradict each other although neither was tampered with, and a
list may be cut in the middle of a change. So a live source is looked at again, everything anew, while anything is
undecided or violated. What two looks show alike is so; what one look shows and another does not is `unknown`, never
innocent: whoever altered it may have taken it back.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec

from hypervigil.core.errors import ProgramError
from hypervigil.core.finding import Finding, Verdict, Violation

MAX_LOOKS = 4
"""After so many looks at a live source what is still undecided stays so."""

_ENOUGH = 2
_DECIDED = (Verdict.HOLDS, Verdict.NOT_APPLICABLE)

Look = tuple[Finding, ...]


def is_settled(looks: Sequence[Look]) -> bool:
    """Whether another look could not change anything: every check holds, or shows a violation for a second time."""
    return all(_is_settled(findings) for findings in _by_check(looks))


def settle(looks: Sequence[Look]) -> Look:
    """The findings of all looks together, in the order of the checks.

    Raises:
        ProgramError: there is no look, or two looks are of different checks.
    """
    if len(looks) == 1:
        return looks[0]
    return tuple(_settled(findings) for findings in _by_check(looks))


def _by_check(looks: Sequence[Look]) -> list[tuple[Finding, ...]]:
    if not looks or len({tuple(finding.check for finding in look) for look in looks}) > 1:
        raise ProgramError("looks are of different checks")
    return list(zip(*looks, strict=True))


def _is_settled(findings: tuple[Finding, ...]) -> bool:
    if any(finding.verdict is Verdict.VIOLATED for finding in findings):
        return bool(_repeated(findings))
    return any(finding.verdict in _DECIDED for finding in findings)


def _settled(findings: tuple[Finding, ...]) -> Finding:
    violated = [finding for finding in findings if finding.verdict is Verdict.VIOLATED]
    if not violated:
        return next((finding for finding in reversed(findings) if finding.verdict in _DECIDED), findings[-1])
    repeated = _repeated(findings)
    for finding in reversed(violated):
        kept = tuple(violation for violation in finding.violations if _key(violation) in repeated)
        if kept:
            return msgspec.structs.replace(finding, violations=kept)
    shown = violated[-1].violations[0].message
    why = f"of {len(findings)} looks at memory that changes only one showed a violation ({shown}); judge again"
    return msgspec.structs.replace(violated[-1], verdict=Verdict.UNKNOWN, violations=(), why=why)


def _repeated(findings: tuple[Finding, ...]) -> set[tuple[str, int | None]]:
    """What was violated in at least two looks."""
    seen = Counter(key for finding in findings for key in {_key(violation) for violation in finding.violations})
    return {key for key, count in seen.items() if count >= _ENOUGH}


def _key(violation: Violation) -> tuple[str, int | None]:
    """What a violation is about; its message may name numbers that change."""
    return (violation.object or ("" if violation.address is not None else violation.message), violation.address)
