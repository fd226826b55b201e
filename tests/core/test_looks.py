import msgspec
import pytest

from hypervigil.core.errors import ProgramError
from hypervigil.core.evidence import Span
from hypervigil.core.facts import Gap
from hypervigil.core.finding import Confidence, Finding, Severity, Verdict, Violation
from hypervigil.core.looks import is_settled, settle

HOLDS, UNKNOWN, INCOMPLETE, NEVER = Verdict.HOLDS, Verdict.UNKNOWN, Verdict.INCOMPLETE, Verdict.NOT_APPLICABLE
"""Verdicts of one look; a set of names stands for a look that shows violations of those objects."""


def finding(said: Verdict | set[str], number: int, check: str = "KRN-001") -> Finding:
    violations: tuple[Violation, ...] = ()
    if isinstance(said, set):
        violations = tuple(
            Violation(message=f"{name} in look {number}", object=name, address=1, spans=(Span("memory", 1, 2),))
            for name in sorted(said)
        )
    return Finding(
        check=check,
        title="t",
        verdict=Verdict.VIOLATED if isinstance(said, set) else said,
        severity=Severity.HIGH,
        confidence=Confidence.HIGH,
        why=f"look {number}" if said in (UNKNOWN, NEVER) else "",
        violations=violations,
        gaps=(Gap("a", f"look {number}"),) if said is INCOMPLETE else (),
    )


def looks(*said: Verdict | set[str]) -> list[tuple[Finding, ...]]:
    return [(finding(one, number),) for number, one in enumerate(said)]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ((HOLDS,), True),
        ((NEVER,), True),
        ((INCOMPLETE,), False),
        ((UNKNOWN,), False),
        (({"a"},), False),
        (({"a"}, {"a"}), True),
        (({"a"}, {"b"}), False),
        (({"a"}, HOLDS), False),
        (({"a"}, HOLDS, {"a", "b"}), True),
        ((INCOMPLETE, HOLDS), True),
        ((HOLDS, INCOMPLETE), True),
    ],
)
def test_looking_ends_when_every_check_holds_or_shows_the_same_again(
    said: tuple[Verdict | set[str], ...], *, expected: bool
) -> None:
    assert is_settled(looks(*said)) is expected


@pytest.mark.parametrize(
    ("said", "verdict", "objects"),
    [
        (({"a"},), Verdict.VIOLATED, {"a"}),
        (({"a"}, {"a"}), Verdict.VIOLATED, {"a"}),
        (({"a"}, {"a", "b"}), Verdict.VIOLATED, {"a"}),
        (({"a"}, HOLDS, {"a"}), Verdict.VIOLATED, {"a"}),
        (({"a"}, {"a"}, HOLDS), Verdict.VIOLATED, {"a"}),
        (({"a"}, {"b"}, {"c"}), UNKNOWN, set()),
        (({"a"}, HOLDS, HOLDS), UNKNOWN, set()),
        ((HOLDS, {"a"}), UNKNOWN, set()),
        ((INCOMPLETE, HOLDS), HOLDS, set()),
        ((HOLDS, UNKNOWN), HOLDS, set()),
        ((UNKNOWN, INCOMPLETE), INCOMPLETE, set()),
    ],
)
def test_what_only_one_look_shows_is_unknown(
    said: tuple[Verdict | set[str], ...], verdict: Verdict, objects: set[str]
) -> None:
    (one,) = settle(looks(*said))
    assert one.verdict is verdict
    assert {violation.object for violation in one.violations} == objects


def test_a_violation_is_told_as_the_last_look_shows_it() -> None:
    (one,) = settle(looks({"a"}, {"a"}, HOLDS))
    assert one.violations[0].message == "a in look 1"


def shown(message: str, address: int | None, thing: str = "") -> tuple[Finding, ...]:
    """A look that shows one violation."""
    violation = Violation(message=message, object=thing, address=address, spans=(Span("memory", 1, 2),))
    return (msgspec.structs.replace(finding({"a"}, 0), violations=(violation,)),)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("3 hooks", 8), ("4 hooks", 8), True),
        (("3 hooks", 8), ("3 hooks", 9), False),
        (("3 hooks", None), ("3 hooks", None), True),
        (("3 hooks", None), ("4 hooks", None), False),
        (("3 hooks", None, "table"), ("4 hooks", None, "table"), True),
        (("3 hooks", 8, "table"), ("3 hooks", 8, "other"), False),
    ],
)
def test_a_violation_is_the_same_by_object_and_place_or_by_its_words(
    one: tuple[str, int | None], other: tuple[str, int | None], *, same: bool
) -> None:
    assert is_settled([shown(*one), shown(*other)]) is same


def test_the_reason_names_what_one_look_showed() -> None:
    (one,) = settle(looks({"a"}, HOLDS))
    assert one.why == "of 2 looks at memory that changes only one showed a violation (a in look 0); judge again"


def test_every_check_is_settled_by_itself_in_its_order() -> None:
    made = [
        (finding(HOLDS, number), finding({"a"}, number, "KRN-002"), finding(one, number, "KRN-003"))
        for number, one in enumerate((INCOMPLETE, HOLDS))
    ]
    assert not is_settled(made[:1])
    assert is_settled(made)
    assert [(f.check, f.verdict) for f in settle(made)] == [
        ("KRN-001", HOLDS),
        ("KRN-002", Verdict.VIOLATED),
        ("KRN-003", HOLDS),
    ]


@pytest.mark.parametrize(
    "made", [[], [(finding(HOLDS, 0),), ()], [(finding(HOLDS, 0),), (finding(HOLDS, 1, "KRN-002"),)]]
)
def test_looks_of_different_checks_are_a_mistake(made: list[tuple[Finding, ...]]) -> None:
    with pytest.raises(ProgramError):
        settle(made)
