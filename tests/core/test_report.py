import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.evidence import Span
from hypervigil.core.facts import Gap
from hypervigil.core.finding import Confidence, Finding, Severity, Verdict, Violation
from hypervigil.core.report import Coverage, Property, Undecided, coverage_of, overall, page_of
from tests.core.samples import METADATA, door_is_locked, loaded

_SOME = (Violation(message="m", spans=(Span("memory", 0, 1),)),)


def finding(
    verdict: Verdict, check: str = "A-1", *, required: bool = True, why: str = "", gaps: tuple[Gap, ...] = ()
) -> Finding:
    return Finding(
        check=check,
        title="t",
        verdict=verdict,
        severity=Severity.LOW,
        confidence=Confidence.HIGH,
        required=required,
        why=why,
        gaps=gaps,
        violations=_SOME if verdict is Verdict.VIOLATED else (),
    )


FINDINGS = st.lists(
    st.builds(lambda v, required: finding(v, required=required), st.sampled_from(Verdict), st.booleans())
).map(tuple)


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ((), (Verdict.UNKNOWN, 3)),
        ((finding(Verdict.NOT_APPLICABLE),), (Verdict.UNKNOWN, 3)),
        ((finding(Verdict.HOLDS, required=False),), (Verdict.UNKNOWN, 3)),
        ((finding(Verdict.HOLDS),), (Verdict.HOLDS, 0)),
        ((finding(Verdict.HOLDS), finding(Verdict.UNKNOWN)), (Verdict.UNKNOWN, 3)),
        ((finding(Verdict.HOLDS), finding(Verdict.INCOMPLETE)), (Verdict.INCOMPLETE, 3)),
        ((finding(Verdict.HOLDS), finding(Verdict.UNKNOWN, required=False)), (Verdict.HOLDS, 0)),
        ((finding(Verdict.UNKNOWN), finding(Verdict.VIOLATED)), (Verdict.VIOLATED, 1)),
        ((finding(Verdict.HOLDS), finding(Verdict.VIOLATED, required=False)), (Verdict.VIOLATED, 1)),
    ],
)
def test_the_overall_verdict_and_its_exit_status(findings: tuple[Finding, ...], expected: tuple[Verdict, int]) -> None:
    assert overall(findings) == expected


@given(FINDINGS)
def test_the_exit_status_follows_the_verdict(findings: tuple[Finding, ...]) -> None:
    verdict, status = overall(findings)
    assert status == {Verdict.HOLDS: 0, Verdict.VIOLATED: 1}.get(verdict, 3)
    assert (status == 1) == any(f.verdict is Verdict.VIOLATED for f in findings)
    if status == 0:
        assert any(f.required and f.verdict is Verdict.HOLDS for f in findings)
        assert all(f.verdict in {Verdict.HOLDS, Verdict.NOT_APPLICABLE} for f in findings if f.required)


@given(FINDINGS)
def test_coverage_counts_every_finding_once(findings: tuple[Finding, ...]) -> None:
    coverage = coverage_of(findings)
    assert coverage.applicable + coverage.not_applicable == len(findings)
    assert coverage.decided + len(coverage.undecided) == coverage.applicable
    assert coverage.decided == sum(f.verdict in {Verdict.HOLDS, Verdict.VIOLATED} for f in findings)


def test_coverage_names_what_was_not_decided_and_why() -> None:
    gaps = tuple(Gap(f"page {n}", "not in the image") for n in range(5))
    coverage = coverage_of(
        (
            finding(Verdict.UNKNOWN, "B-1", why="no symbols", gaps=gaps),
            finding(Verdict.INCOMPLETE, "A-2", gaps=gaps),
            finding(Verdict.INCOMPLETE, "A-1", gaps=gaps[:3]),
            finding(Verdict.HOLDS, "C-1"),
            finding(Verdict.NOT_APPLICABLE, "D-1", why="no Xen"),
        )
    )
    three = "page 0: not in the image; page 1: not in the image; page 2: not in the image"
    assert coverage == Coverage(
        decided=1,
        applicable=4,
        not_applicable=1,
        undecided=(
            Undecided("A-1", three),
            Undecided("A-2", f"{three}; and 2 more"),
            Undecided("B-1", "no symbols"),
        ),
    )


def test_coverage_of_nothing_is_nothing() -> None:
    assert coverage_of(()) == Coverage(decided=0, applicable=0, not_applicable=0)


def test_a_page_carries_the_metadata_of_its_check() -> None:
    page = page_of(loaded(door_is_locked))
    assert (page.check, page.name) == ("DOR-001", "door_is_locked")
    for field in ("rationale", "remedy", "false_positives", "cannot_see", "standards", "sources"):
        assert getattr(page, field) == getattr(METADATA, field)


def test_properties_and_undecided_are_ordered_by_name_first() -> None:
    assert min(Property("b", "a"), Property("a", "b")).name == "a"
    assert min(Undecided("b", "a"), Undecided("a", "b")).check == "a"
