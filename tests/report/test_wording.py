import pytest
from hypothesis import given, settings

from hypervigil.core.evidence import Span
from hypervigil.core.finding import Finding, Observation, Severity, Verdict, Violation
from hypervigil.core.report import Report
from hypervigil.report.wording import (
    bytesize,
    counted,
    coverage,
    foundations,
    headline,
    of,
    one_line,
    pages,
    place,
    ranked,
    reasons,
)
from tests.report import reports
from tests.report.reports import GAP, finding, report
from tests.report.strategies import ANY_TEXT
from tests.report.strategies import reports as any_reports


def test_a_violated_report_says_how_much_and_how_bad() -> None:
    assert headline(reports.violated()) == (
        "host-07.raw is not what it should be: 2 violations in 2 checks, the worst critical"
    )


def test_the_worst_severity_is_the_worst_whatever_the_order() -> None:
    violation = (reports.slot_violation(),)
    low = finding("A-1", "a", Verdict.VIOLATED, Severity.LOW, violations=violation)
    medium = finding("B-1", "b", Verdict.VIOLATED, Severity.MEDIUM, violations=violation)
    assert headline(report((low, medium))).endswith("the worst medium")


def test_a_clean_report_says_how_many_checks_hold() -> None:
    assert headline(reports.clean()) == "host-07.raw shows no violation, and all 7 required checks hold"


@pytest.mark.parametrize(
    "findings",
    [
        (),
        (finding("A-1", "a", Verdict.NOT_APPLICABLE),),
        (finding("A-1", "a", Verdict.UNKNOWN),),
        (finding("A-1", "a", Verdict.INCOMPLETE, gaps=(GAP,)), finding("A-2", "a", Verdict.HOLDS)),
        (finding("A-1", "a", Verdict.HOLDS, required=False),),
    ],
)
def test_whatever_is_not_fully_seen_is_called_no_clean_result(findings: tuple[Finding, ...]) -> None:
    assert "not a clean result" in headline(report(findings))


@settings(max_examples=40)
@given(any_reports(ANY_TEXT))
def test_only_a_report_that_holds_is_free_of_violations_and_doubt(subject: Report) -> None:
    said = headline(subject)
    assert ("shows no violation" in said) == (subject.verdict is Verdict.HOLDS)
    assert coverage(subject) in one_line(subject)
    assert str(subject.verdict) in one_line(subject)


def test_an_undecided_report_counts_required_checks_only() -> None:
    assert "1 of 8 required checks could not be decided" in headline(reports.undecided())


def test_coverage_counts_what_applies() -> None:
    assert coverage(reports.violated()) == "9 of 11 applicable checks could be decided; 1 does not apply"
    assert coverage(report(reports.passed())) == "7 of 7 applicable checks could be decided"


def test_a_violated_report_rests_on_what_its_violated_checks_trusted() -> None:
    only = finding("A-1", "a", Verdict.VIOLATED, violations=(reports.slot_violation(),), rests_on=("b", "a"))
    assert foundations(report((only, *reports.passed()))) == ("a", "b")


def test_a_clean_report_rests_on_what_every_decided_check_trusted() -> None:
    extra = finding("A-1", "a", Verdict.HOLDS, rests_on=("page tables",))
    unknown = finding("A-2", "a", Verdict.UNKNOWN, rests_on=("nothing",))
    assert foundations(report((*reports.passed(), extra, unknown))) == (reports.TYPES, reports.SYMBOLS, "page tables")


def test_a_report_that_decided_nothing_rests_on_nothing() -> None:
    assert foundations(report((finding("A-1", "a", Verdict.UNKNOWN),))) == ("nothing, since no check was decided",)
    bare = finding("A-1", "a", Verdict.HOLDS, rests_on=())
    assert foundations(report((bare,))) == ("the bytes of the evidence alone",)


def test_findings_are_ranked_by_verdict_need_severity_and_id() -> None:
    order = [
        finding(
            "Z-1",
            "",
            Verdict.VIOLATED,
            Severity.LOW,
            required=False,
            violations=(Violation(message="m", spans=(Span("memory", 0, 1),)),),
        ),
        finding("B-1", "", Verdict.INCOMPLETE, Severity.HIGH),
        finding("A-1", "", Verdict.UNKNOWN, Severity.LOW),
        finding("A-0", "", Verdict.UNKNOWN, Severity.CRITICAL, required=False),
        finding("A-2", "", Verdict.HOLDS, Severity.CRITICAL),
        finding("A-3", "", Verdict.HOLDS, Severity.CRITICAL),
        finding("A-4", "", Verdict.NOT_APPLICABLE),
    ]
    assert ranked(tuple(reversed(order))) == order
    assert of(report(tuple(order)), Verdict.UNKNOWN) == order[2:4]


def test_reasons_are_the_reason_or_every_gap() -> None:
    assert reasons(finding("A", "a", Verdict.UNKNOWN, why="no symbols")) == ("no symbols",)
    assert reasons(finding("A", "a", Verdict.INCOMPLETE, gaps=(GAP,))) == (
        "page table at physical 0x1fe03000: not in the image",
    )
    assert reasons(finding("A", "a", Verdict.UNKNOWN)) == ("no reason was recorded",)


def test_a_place_is_what_is_known_of_it() -> None:
    span = (Span("image", 0, 1),)
    assert place(Violation(message="m", spans=span, object="slot", address=0)) == "slot at 0x0"
    assert place(Violation(message="m", spans=span, address=2**64 - 1)) == "0xffffffffffffffff"
    assert place(Observation(message="m", object="slot")) == "slot"
    assert place(Observation(message="m")) == ""


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB (1024 bytes)"),
        (512 * 1024**2, "512.0 MiB (536870912 bytes)"),
        (5 * 1024**4, "5.0 TiB (5497558138880 bytes)"),
        (2**60, "1048576.0 TiB (1152921504606846976 bytes)"),
    ],
)
def test_sizes_are_readable_and_exact(size: int, said: str) -> None:
    assert bytesize(size) == said


def test_nouns_agree_with_their_number() -> None:
    assert counted(1, "check") == "1 check"
    assert counted(0, "check") == "0 checks"
    assert counted(2, "address", "addresses") == "2 addresses"


def test_pages_are_found_by_their_check() -> None:
    assert pages(reports.clean())["KRN-001"].name == "krn_001"
