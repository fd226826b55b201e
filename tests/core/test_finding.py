import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import ProgramError
from hypervigil.core.evidence import Span
from hypervigil.core.finding import Confidence, Finding, Severity, Verdict, Violation, worst

VERDICTS = st.lists(st.sampled_from(Verdict))
STRENGTH = [Verdict.HOLDS, Verdict.INCOMPLETE, Verdict.UNKNOWN, Verdict.VIOLATED]


def test_a_violation_without_evidence_is_our_mistake() -> None:
    with pytest.raises(ProgramError, match="a violation without evidence: the slot is wrong"):
        Violation(message="the slot is wrong", spans=())


def test_a_violation_cites_at_least_one_span() -> None:
    span = Span("image", 0, 1)
    assert Violation(message="m", spans=(span,)).spans == (span,)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], Verdict.UNKNOWN),
        ([Verdict.NOT_APPLICABLE], Verdict.UNKNOWN),
        ([Verdict.HOLDS], Verdict.HOLDS),
        ([Verdict.HOLDS, Verdict.NOT_APPLICABLE], Verdict.HOLDS),
        ([Verdict.HOLDS, Verdict.INCOMPLETE], Verdict.INCOMPLETE),
        ([Verdict.HOLDS, Verdict.UNKNOWN], Verdict.UNKNOWN),
        ([Verdict.INCOMPLETE, Verdict.UNKNOWN], Verdict.UNKNOWN),
        ([Verdict.UNKNOWN, Verdict.INCOMPLETE], Verdict.UNKNOWN),
        ([Verdict.VIOLATED, Verdict.UNKNOWN, Verdict.INCOMPLETE, Verdict.HOLDS], Verdict.VIOLATED),
        ([Verdict.INCOMPLETE, Verdict.NOT_APPLICABLE], Verdict.INCOMPLETE),
    ],
)
def test_the_worst_verdict(verdicts: list[Verdict], expected: Verdict) -> None:
    assert worst(verdicts) is expected


@given(VERDICTS)
def test_the_worst_is_the_strongest_applicable_one(verdicts: list[Verdict]) -> None:
    applicable = [v for v in verdicts if v is not Verdict.NOT_APPLICABLE]
    expected = max(applicable, key=STRENGTH.index) if applicable else Verdict.UNKNOWN
    assert worst(verdicts) is expected


@given(VERDICTS)
def test_only_unbroken_holds_hold(verdicts: list[Verdict]) -> None:
    applicable = set(verdicts) - {Verdict.NOT_APPLICABLE}
    assert (worst(verdicts) is Verdict.HOLDS) == (applicable == {Verdict.HOLDS})


@given(VERDICTS, VERDICTS)
def test_adding_verdicts_never_makes_it_better(some: list[Verdict], more: list[Verdict]) -> None:
    if set(some) - {Verdict.NOT_APPLICABLE}:
        assert STRENGTH.index(worst(some + more)) >= STRENGTH.index(worst(some))


def test_words_are_part_of_the_published_schema() -> None:
    assert [str(v) for v in Verdict] == ["violated", "unknown", "incomplete", "holds", "not applicable"]
    assert [str(s) for s in Severity] == ["low", "medium", "high", "critical"]
    assert [str(c) for c in Confidence] == ["low", "medium", "high"]


def test_a_finding_is_required_unless_its_profile_says_otherwise() -> None:
    finding = Finding(check="A-1", title="t", verdict=Verdict.HOLDS, severity=Severity.LOW, confidence=Confidence.LOW)
    assert finding.required
