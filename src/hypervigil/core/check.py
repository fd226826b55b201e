"""Checks and the engine that gives their verdicts.

A check is a generator over facts, tagged with `check`. Its parameters' annotations say which facts it reads.
It never decides its own verdict:

1. a parameter that is `Unknown` - the check is not called, the verdict is `unknown`;
2. a parameter that is `Absent` - not called, `not applicable`;
3. it yields a `Violation` - `violated`, whatever else was not seen;
4. any fact it read has gaps - `incomplete`;
5. otherwise `holds`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar, get_type_hints

import msgspec

from hypervigil.core.errors import ProgramError
from hypervigil.core.facts import Absent, Fact, FactOutcome, Facts, Gap, Unknown
from hypervigil.core.finding import Confidence, Finding, Observation, Severity, Verdict, Violation

CheckFunction = Callable[..., Iterator[Violation | Observation]]
F = TypeVar("F", bound=CheckFunction)

_TAG = "__hypervigil_check__"


class Example(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Facts as data and the verdict they must give: a check's unit test and part of its page.

    Attributes:
        name: what the example shows.
        verdict: the verdict that the engine must reach.
        says: a substring of the first violation's or observation's message, or of the reason.
        facts: by the fact's class name, its fields; or ``{unknown = "why"}`` or ``{absent = "why"}``.
    """

    name: str
    verdict: Verdict
    says: str = ""
    facts: dict[str, dict[str, object]] = {}


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a check's data file says of it; rendered as its documentation page.

    Attributes:
        title: the statement that should be true.
        rationale: why it matters and who would alter it.
        remedy: what to do when it is violated.
        false_positives: what is known to violate it without malice.
        cannot_see: what escapes this check.
        standards: identifiers of catalogues, such as ``ATT&CK T1014``.
        sources: where the knowledge comes from.
        aliases: earlier ids.
        profiles: the profiles that require it.
    """

    title: str
    severity: Severity
    confidence: Confidence = Confidence.HIGH
    rationale: str
    remedy: str
    false_positives: str
    cannot_see: str
    standards: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ("default",)
    example: tuple[Example, ...] = ()


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded check: its function, the facts it reads and its metadata."""

    id: str
    function: CheckFunction
    needs: tuple[type[Fact], ...]
    about: Metadata

    @property
    def name(self) -> str:
        """The function's name: a statement that should be true."""
        return self.function.__name__


def check(check_id: str) -> Callable[[F], F]:
    """Tag a function as the check `check_id`; the loader finds it by the tag."""

    def tag(function: F) -> F:
        setattr(function, _TAG, check_id)
        return function

    return tag


def check_id_of(candidate: object) -> str | None:
    """The id that `check` gave to `candidate`, or None if it is no check."""
    value = getattr(candidate, _TAG, None)
    return value if isinstance(value, str) else None


def needs_of(function: CheckFunction) -> tuple[type[Fact], ...]:
    """The fact types that a check's annotations name, in the order of its parameters.

    Raises:
        ProgramError: a parameter is not annotated with a `Fact`.
    """
    try:
        hints = get_type_hints(function)
    except NameError as fault:
        raise ProgramError(f"check {function.__name__}: {fault}") from fault
    needs: list[type[Fact]] = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints.get(name)
        if not (isinstance(hint, type) and issubclass(hint, Fact)):
            raise ProgramError(f"check {function.__name__}: parameter {name} is not annotated with a fact")
        if hint in needs or parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            raise ProgramError(f"check {function.__name__}: parameter {name} cannot be given a fact of its own")
        needs.append(hint)
    if not needs:
        raise ProgramError(f"check {function.__name__} reads no fact")
    return tuple(needs)


def judge(subject: Check, facts: Facts, *, profile: str = "default") -> Finding:
    """Give the verdict of one check over `facts`.

    A fact type that `facts` does not mention counts as unknown.
    """
    outcomes: Mapping[type[Fact], FactOutcome] = {
        need: facts.get(need, Unknown(f"{need.__name__} was not extracted")) for need in subject.needs
    }
    for need, outcome in outcomes.items():
        if not isinstance(outcome, need | Unknown | Absent):
            raise ProgramError(f"{type(outcome).__name__} stands where {need.__name__} should")
    unknown = sorted({o.why for o in outcomes.values() if isinstance(o, Unknown)})
    absent = sorted({o.why for o in outcomes.values() if isinstance(o, Absent)})
    seen = [o for o in outcomes.values() if isinstance(o, Fact)]
    if unknown:
        return _finding(subject, Verdict.UNKNOWN, seen, profile, why="; ".join(unknown))
    if absent:
        return _finding(subject, Verdict.NOT_APPLICABLE, seen, profile, why="; ".join(absent))
    said = list(subject.function(*outcomes.values()))
    violations = tuple(s for s in said if isinstance(s, Violation))
    observations = tuple(s for s in said if isinstance(s, Observation))
    if len(violations) + len(observations) != len(said):
        raise ProgramError(f"{subject.id} yields something that is neither a violation nor an observation")
    if violations:
        verdict = Verdict.VIOLATED
    elif any(fact.gaps for fact in seen):
        verdict = Verdict.INCOMPLETE
    else:
        verdict = Verdict.HOLDS
    return _finding(subject, verdict, seen, profile, violations=violations, observations=observations)


def unjudged(subject: Check, why: str, *, profile: str = "default") -> Finding:
    """The finding of a check that could not be carried out, such as one that failed itself."""
    return _finding(subject, Verdict.UNKNOWN, [], profile, why=why)


def _finding(  # the one place where a verdict becomes a finding
    subject: Check,
    verdict: Verdict,
    seen: list[Fact],
    profile: str,
    *,
    why: str = "",
    violations: tuple[Violation, ...] = (),
    observations: tuple[Observation, ...] = (),
) -> Finding:
    gaps: set[Gap] = {gap for fact in seen for gap in fact.gaps}
    return Finding(
        check=subject.id,
        title=subject.about.title,
        verdict=verdict,
        severity=subject.about.severity,
        confidence=subject.about.confidence,
        required=profile in subject.about.profiles,
        why=why,
        violations=tuple(sorted(violations, key=_order)),
        observations=tuple(sorted(observations, key=_order)),
        gaps=tuple(sorted(gaps)),
        rests_on=tuple(sorted({claim for fact in seen for claim in fact.rests_on})),
    )


def _order(said: Violation | Observation) -> tuple[int, str, str, bytes]:
    """By place, then by name; what ties in both is ordered by all that it says."""
    return said.address or 0, said.object, said.message, msgspec.json.encode(said)
