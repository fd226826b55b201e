import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervigil.core.finding import Finding, Verdict, Violation
from hypervigil.core.report import Exhibit, Line, Report
from hypervigil.report.terminal import Look, look_of, quiet, render
from hypervigil.report.visible import visible
from hypervigil.report.wording import hexadecimal
from tests.report import reports
from tests.report.exhibits import AFTER
from tests.report.golden import assert_golden
from tests.report.strategies import ANY_TEXT
from tests.report.strategies import reports as any_reports

SGR = re.compile(r"\x1b\[[0-9;]*m")
LOOKS = st.builds(Look, width=st.integers(40, 200), colour=st.booleans())


def squeezed(text: str) -> str:
    """Without colour and white space: wrapping may stand anywhere."""
    return "".join(SGR.sub("", text).split())


@pytest.mark.parametrize("name", ["clean", "violated", "undecided", "hostile"])
def test_the_output_is_the_stored_one(name: str) -> None:
    assert_golden(f"{name}.txt", render(getattr(reports, name)()))


def test_the_answer_stands_in_the_first_two_lines() -> None:
    first, second = render(reports.violated()).splitlines()[:2]
    assert first.startswith("VIOLATED: host-07.raw is not what it should be: 2 violations")
    assert second == "9 of 11 applicable checks could be decided; 1 does not apply (exit status 1)"


def test_a_violation_shows_all_that_proves_it() -> None:
    text = render(reports.violated())
    for proof in (
        "violated[KVM-001] critical, high confidence: KVM dispatch slots lead to KVM functions",
        "--> kvm_x86_ops.handle_exit at 0xffffffffc0a1b2c0",
        "found: 0xffffffffc0c81000 (no owner)",
        "expected: svm_handle_exit (0xffffffffc09f2310)",
        "evidence: image [0x1f3a12c0, 0x1f3a12c8), 8 bytes",
        "- 0xffffffffc09f2310  0f1f440000            nop dword ptr [rax + rax]",
        "+ 0xffffffffc09f2310  e9ebec2800            jmp 0xffffffffc0c81000",
        "= remedy: Treat the host",
        "= rests on: page tables from swapper_pg_dir",
        "= not seen: page table at physical 0x1fe03000: not in the image",
    ):
        assert proof in text


def shown(**what: object) -> str:
    exhibit = Exhibit(**{"check": "A-1", "violation": 0, "title": "t", "address": 0, "spans": ()} | what)  # type: ignore[arg-type] # a test's own
    found = reports.finding("A-1", "a", Verdict.VIOLATED, violations=(reports.slot_violation(),))
    return render(reports.report((found,), exhibits=(exhibit,)))


@pytest.mark.parametrize(("size", "cut"), [(12 * 16, False), (12 * 16 + 1, True), (40 * 16, True)])
def test_bytes_that_are_not_shown_are_told(size: int, *, cut: bool) -> None:
    assert ("... the rest is in the JSON and HTML reports" in shown(found="90" * size)) is cut


@pytest.mark.parametrize(("count", "cut"), [(12, False), (13, True)])
def test_instructions_that_are_not_shown_are_told(count: int, *, cut: bool) -> None:
    lines = tuple(Line(at, f"{at:02x}", f"push {at}") for at in range(count))
    text = shown(after=lines)
    assert ("... the rest is in the JSON and HTML reports" in text) is cut
    assert text.count("push ") == 12


def test_two_equal_instructions_are_both_shown() -> None:
    lines = (Line(0, "90", "nop"), Line(1, "90", "nop"), Line(2, "c3", "ret"))
    text = shown(after=lines)
    assert text.count("nop") == 2
    assert "more like it" not in text


def test_equal_instructions_are_folded() -> None:
    padding = tuple(Line(at * 2, "0000", "add byte ptr [rax], al") for at in range(16))
    shown = Exhibit(check="A-1", violation=0, title="t", address=0, spans=(), after=(*padding, AFTER[1]))
    found = reports.finding("A-1", "a", Verdict.VIOLATED, violations=(reports.slot_violation(),))
    text = render(reports.report((found,), exhibits=(shown,)))
    assert text.count("add byte ptr") == 1
    assert "... and 15 more like it" in text
    assert "push r15" in text


def test_what_was_said_is_not_said_again() -> None:
    twice = tuple(
        reports.finding(f"A-{n}", "a", Verdict.VIOLATED, violations=(reports.slot_violation(),)) for n in (1, 2)
    )
    text = render(reports.report(twice))
    assert text.count("Treat the host") == 1
    assert "= remedy: as for A-1" in text
    assert "= rests on" not in text


def test_a_long_report_repeats_its_answer_at_the_end() -> None:
    assert (
        quiet(reports.violated()).split()
        == render(reports.violated()).split()[-len(quiet(reports.violated()).split()) :]
    )


def test_checks_undecided_for_one_reason_share_it() -> None:
    unknown = [reports.finding(f"KRN-{n}", "t", Verdict.UNKNOWN, why="no kallsyms was found") for n in range(3)]
    text = render(reports.report(tuple(unknown)))
    assert text.count("no kallsyms was found") == 1
    assert all(f"unknown[KRN-{n}]" in text for n in range(3))


def test_what_does_not_apply_is_folded_into_a_line() -> None:
    absent = tuple(
        reports.finding(f"XEN-{n}", "t", Verdict.NOT_APPLICABLE, why="this kernel is no Xen domain") for n in range(9)
    )
    text = render(reports.report((*reports.passed(), *absent)))
    assert "not applicable: 9 checks (this kernel is no Xen domain)" in text
    assert "XEN-" not in text


def test_rejected_descriptions_are_counted_or_told_if_none_would_do() -> None:
    assert "1 kept, 1 rejected" in render(reports.undecided())
    rejected = tuple(c for c in reports.undecided().candidates if not c.kept)
    text = render(reports.report(reports.not_decided(), candidates=rejected))
    assert "none could be used\n  VMCOREINFO at physical 0x1a3b7000: no KERNELOFFSET: a stale copy" in text


def test_without_colour_no_escape_is_written_and_with_it_the_words_are_the_same() -> None:
    plain, coloured = (render(reports.violated(), Look(colour=colour)) for colour in (False, True))
    assert "\x1b" not in plain
    assert SGR.search(coloured)
    assert squeezed(coloured) == squeezed(plain)


def test_nothing_but_colour_escapes_reach_a_terminal() -> None:
    text = SGR.sub("", render(reports.hostile(), Look(colour=True)))
    assert "\x1b" not in text
    assert all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_no_line_is_wider_than_asked(width: int) -> None:
    for report in (reports.violated(), reports.hostile()):
        assert max(map(len, render(report, Look(width=width)).splitlines())) <= width


def test_characters_that_the_stream_lacks_are_written_as_escapes() -> None:
    report = reports.report(reports.passed(), limits=("Jürgen",))
    assert "Jürgen" in render(report)
    assert r"J\xfcrgen" in render(report, Look(encoding="ascii"))


def test_thousands_of_violations_get_a_line_each() -> None:
    text = render(reports.huge())
    assert "site_1999 at 0xffffffffc0a22fb0: site 1999 calls an unknown trampoline" in text
    assert len(text.splitlines()) < 2_100


def test_the_quiet_form_is_one_line() -> None:
    for report in (reports.clean(), reports.violated(), reports.undecided(), reports.hostile()):
        line = quiet(report)
        assert line.endswith("\n")
        assert line.count("\n") == 1
        assert line.startswith(str(report.verdict))


@settings(max_examples=40)
@given(any_reports(ANY_TEXT), LOOKS)
def test_any_report_renders_and_shows_every_violation(report: Report, look: Look) -> None:
    text = render(report, look)
    assert text == render(report, look)
    assert text.startswith(str(report.verdict).upper()) or look.colour
    assert quiet(report).count("\n") == 1
    seen = squeezed(text)
    for violation in _violations(report.findings):
        assert squeezed(visible(violation.message)) in seen
        assert violation.address is None or hexadecimal(violation.address) in seen


def _violations(findings: tuple[Finding, ...]) -> list[Violation]:
    return [violation for finding in findings for violation in finding.violations]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Pipe(io.StringIO):
    encoding = "ascii"


def test_a_pipe_gets_no_colour_and_a_fixed_width() -> None:
    assert look_of(Pipe(), {}) == Look(width=100, colour=False, encoding="ascii")


@pytest.mark.parametrize(
    ("environment", "colour"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
    ],
)
def test_colour_needs_a_terminal_that_wants_it(environment: dict[str, str], colour: bool) -> None:  # noqa: FBT001 - a parametrized expectation
    assert look_of(Terminal(), {"COLUMNS": "80", **environment}).colour is colour


@pytest.mark.parametrize(("columns", "width"), [("80", 80), ("5", 40), ("0", 100), ("x", 100), ("9" * 50, 100)])
def test_columns_decide_the_width_if_they_are_a_number(columns: str, width: int) -> None:
    assert look_of(Pipe(), {"COLUMNS": columns}).width == width
