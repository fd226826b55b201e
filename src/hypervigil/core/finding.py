"""Findings: what a check says of facts."""

from enum import StrEnum

import msgspec

from hypervigil.core.errors import ProgramError
from hypervigil.core.evidence import Span
from hypervigil.core.facts import Gap


class Verdict(StrEnum):
    """The answers a check can give. `worst` orders them."""

    VIOLATED = "violated"
    UNKNOWN = "unknown"
    INCOMPLETE = "incomplete"
    HOLDS = "holds"
    NOT_APPLICABLE = "not applicable"


_RANK = {
    Verdict.VIOLATED: 3,
    Verdict.UNKNOWN: 2,
    Verdict.INCOMPLETE: 2,
    Verdict.HOLDS: 1,
    Verdict.NOT_APPLICABLE: 0,
}


def worst(verdicts: list[Verdict]) -> Verdict:
    """The verdict over many: violated > unknown = incomplete > holds; `not applicable` is neutral.

    Nothing at all, or nothing applicable, is `unknown`: a run that decided nothing proves nothing.
    """
    applicable = [v for v in verdicts if v is not Verdict.NOT_APPLICABLE]
    if not applicable:
        return Verdict.UNKNOWN
    top = max(applicable, key=_RANK.__getitem__)
    return Verdict.UNKNOWN if top is Verdict.INCOMPLETE and Verdict.UNKNOWN in applicable else top


class Severity(StrEnum):
    """How bad a violation would be."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Confidence(StrEnum):
    """How sure a violation is, given what is known of false positives."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class CodeRef(msgspec.Struct, frozen=True, kw_only=True):
    """Code or data that a reader of a finding should see.

    Attributes:
        title: what it is, such as ``where the slot leads``.
        address: virtual address of its first byte.
        size: how many bytes to show.
        code: whether to disassemble it.
        expected: the bytes that should stand there, as hexadecimal digits; empty if that is not known.
    """

    title: str
    address: int
    size: int
    code: bool = True
    expected: str = ""


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One statement that should be true and is not.

    Attributes:
        message: one sentence in lower case.
        spans: the evidence, at least one range.
        object: the altered thing in the kernel's own terms, such as ``kvm_x86_ops.handle_exit``.
        address: its virtual address, or None where it has none.
        found: what stands there.
        expected: what should stand there.
        code: what to show of it.

    Raises:
        ProgramError: no evidence is cited.
    """

    message: str
    spans: tuple[Span, ...]
    object: str = ""
    address: int | None = None
    found: str = ""
    expected: str = ""
    code: tuple[CodeRef, ...] = ()

    def __post_init__(self) -> None:
        if not self.spans:
            raise ProgramError(f"a violation without evidence: {self.message}")


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """True and worth knowing, and no violation: a tracer's kprobe on a KVM function."""

    message: str
    object: str = ""
    address: int | None = None
    spans: tuple[Span, ...] = ()


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A check's verdict and all that a reader needs to act on it.

    Attributes:
        check: its id, such as ``KVM-001``.
        title: the statement that should be true.
        why: for `unknown` and `not applicable`, the reason; empty otherwise.
        gaps: what was not seen of the facts it read.
        rests_on: the descriptions that were trusted to reach this verdict.
        required: whether the profile counts it for exit status 3.

    Raises:
        ProgramError: the verdict is `violated` without a violation, or another one with.
    """

    check: str
    title: str
    verdict: Verdict
    severity: Severity
    confidence: Confidence
    required: bool = True
    why: str = ""
    violations: tuple[Violation, ...] = ()
    observations: tuple[Observation, ...] = ()
    gaps: tuple[Gap, ...] = ()
    rests_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.verdict is Verdict.VIOLATED) != bool(self.violations):
            raise ProgramError(f"{self.check}: verdict {self.verdict} with {len(self.violations)} violations")
