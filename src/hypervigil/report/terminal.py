"""The report on a terminal: the answer in the first two lines, then what proves it, then what was not seen.

Structure is plain ASCII and every meaning is a word: colour only repeats it, so that a pipe, a log, a serial console
and a colour-blind reader lose nothing. No character of the report reaches the terminal before `visible` saw it.
"""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import TextIO

import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hypervigil.core.finding import Finding, Observation, Verdict, Violation
from hypervigil.core.report import Exhibit, Line, Report
from hypervigil.report.disassembly import side_by_side
from hypervigil.report.hexdump import Cell, each_row
from hypervigil.report.visible import flowing, visible
from hypervigil.report.wording import (
    bytesize,
    counted,
    coverage,
    foundations,
    headline,
    hexadecimal,
    of,
    one_line,
    pages,
    place,
    reasons,
)

_IN_FULL = 5
"""Violations of one check that are shown with their proof; the others get a line each."""

_LINES = 12
"""Lines of one exhibit; JSON and HTML hold the whole."""

_LISTED = 8
"""Evidence, gaps and reasons listed before a count stands for the rest."""

_STYLE = {
    Verdict.VIOLATED: "bold red",
    Verdict.UNKNOWN: "bold yellow",
    Verdict.INCOMPLETE: "bold yellow",
    Verdict.HOLDS: "bold green",
    Verdict.NOT_APPLICABLE: "dim",
}

_PIPED = 100
"""Columns when the output is no terminal."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What the output can show.

    Attributes:
        width: columns, at least 40.
        colour: whether escape sequences may be written.
        encoding: of the stream; characters that it lacks are written as escapes.
    """

    width: int = _PIPED
    colour: bool = False
    encoding: str = "utf-8"


def look_of(stream: TextIO, environment: Mapping[str, str]) -> Look:
    """How to write to `stream`: colour on a terminal only, never with ``NO_COLOR`` set or ``TERM=dumb``.

    ``COLUMNS`` overrides the terminal's width; a pipe without it gets 100 columns.
    """
    live = stream.isatty()
    columns = environment.get("COLUMNS", "")
    width = int(columns) if columns.isascii() and columns.isdigit() and len(columns) <= len("1000") else 0
    if not width and live:
        width = os.get_terminal_size(stream.fileno()).columns
    return Look(
        width=max(width, 40) if width else _PIPED,
        colour=live and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb",
        encoding=stream.encoding or "utf-8",
    )


def render(report: Report, look: Look | None = None) -> str:
    """The report as text for a person, ending with a newline; the same report and look give the same text."""
    look = look or Look()
    written = io.StringIO()
    out = Console(
        file=written,
        width=look.width,
        force_terminal=look.colour,
        no_color=not look.colour,
        color_system="standard" if look.colour else None,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
    for part in (_answer, _setting, _violated, _undecided, _observations, _folded, _limits, _again):
        part(out, report)
    text = "".join(f"{line.rstrip()}\n" for line in written.getvalue().splitlines())
    return text.encode(look.encoding, "backslashreplace").decode(look.encoding)


def quiet(report: Report) -> str:
    """The answer as one line with a newline."""
    return visible(one_line(report)) + "\n"


def _answer(out: Console, report: Report) -> None:
    verdict = Text(str(report.verdict).upper(), style=_STYLE[report.verdict])
    _say(out, Text.assemble(verdict, (f": {visible(headline(report))}", "bold")))
    _say(out, Text(f"{coverage(report)} (exit status {report.exit_status})"))


def _setting(out: Console, report: Report) -> None:
    run = report.run
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    parts: dict[str, Sequence[str]] = {
        "judged": [f"{run.command} with profile {run.profile}, as of {run.as_of}, by hypervigil {run.tool_version}"],
        "system": [f"{p.name}: {p.value}" for p in report.subject],
        "rests on": foundations(report),
        "evidence": [
            f"{e.id}: {e.kind} {e.name}, {bytesize(e.size)}" + (f", {e.digest}" if e.digest else ", no digest")
            for e in report.evidence
        ],
    }
    for title, lines in parts.items():
        for number, line in enumerate(_first(lines)):
            facts.add_row(Text(title if number == 0 else "", style="dim"), Text(visible(line)))
    out.print()
    out.print(Padding(facts, (0, 0, 0, 2)))


def _violated(out: Console, report: Report) -> None:
    told: dict[str, str] = {}
    for finding in of(report, Verdict.VIOLATED):
        word = Text(f"violated[{visible(finding.check)}]", style=_STYLE[Verdict.VIOLATED])
        out.print()
        title = f" {finding.severity}, {finding.confidence} confidence: {visible(finding.title)}"
        _say(out, Text.assemble(word, (title, "bold")))
        for number, violation in enumerate(finding.violations):
            if number < _IN_FULL:
                shown = [e for e in report.exhibits if (e.check, e.violation) == (finding.check, number)]
                _violation(out, violation, shown)
            else:
                _say(out, Text(visible(_brief(violation))), indent=2)
        _meaning(out, report, finding, told)


def _meaning(out: Console, report: Report, finding: Finding, told: dict[str, str]) -> None:
    """What bears on a violated check; what was already said is not said again, `told` remembers where it was."""
    if set(finding.rests_on) != set(foundations(report)):
        _note(out, "rests on", visible("; ".join(finding.rests_on)))
    for gap in _first([str(gap) for gap in finding.gaps]):
        _note(out, "not seen", visible(gap))
    page = pages(report).get(finding.check)
    if page is None:
        return
    remedy = flowing(page.remedy)
    before = told.setdefault(remedy, visible(finding.check))
    _note(out, "remedy", remedy if before == visible(finding.check) else f"as for {before}")
    _note(out, "false positives", flowing(page.false_positives))


def _violation(out: Console, violation: Violation, exhibits: list[Exhibit]) -> None:
    _say(out, Text.assemble(("--> ", "bold"), visible(place(violation) or "no address")), indent=2)
    told = {
        "": violation.message,
        "found": violation.found,
        "expected": violation.expected,
        "evidence": "; ".join(
            f"{s.evidence} [{s.start:#x}, {s.end:#x}), {counted(s.size, 'byte')}" for s in violation.spans
        ),
    }
    for title, text in told.items():
        if text:
            _say(out, Text.assemble((f"{title:>8}: " if title else "", "dim"), visible(text)), indent=6)
    for exhibit in exhibits:
        _exhibit(out, exhibit)


def _exhibit(out: Console, exhibit: Exhibit) -> None:
    compared = bool(exhibit.before or exhibit.expected)
    lines = list(islice(_code(exhibit) if exhibit.after else _data(exhibit), _LINES + 1))
    where = "" if exhibit.address is None else f" at {hexadecimal(exhibit.address)}"
    legend = " (- should stand there, + stands there)" if compared and lines else ""
    _say(out, Text(f"{visible(exhibit.title)}{where}{legend}:"), indent=6)
    for line in lines[:_LINES]:
        _say(out, line, indent=8)
    if len(lines) > _LINES:
        _say(out, Text("... the rest is in the JSON and HTML reports", style="dim"), indent=8)
    if exhibit.note:
        _say(out, Text(f"note: {visible(exhibit.note)}"), indent=8)


def _code(exhibit: Exhibit) -> Iterator[Text]:
    pairs = side_by_side(exhibit.before, exhibit.after)
    for same, group in groupby(pairs, key=lambda pair: pair.same):
        changed = list(group)
        if same or not exhibit.before:
            yield from _instructions(" ", [p.after for p in changed if p.after], "")
        else:
            yield from _instructions("-", [p.before for p in changed if p.before], "green")
            yield from _instructions("+", [p.after for p in changed if p.after], "red")


def _instructions(mark: str, lines: list[Line], style: str) -> Iterator[Text]:
    """A line for each instruction; of a run of equal ones, such as padding, the first and how many follow."""
    for _, group in groupby(lines, key=lambda line: (line.bytes, line.text)):
        first, *others = group
        yield _instruction(mark, first, style)
        if len(others) > 1:
            yield Text(f"{mark} ... and {len(others)} more like it", style=style)
        else:
            yield from (_instruction(mark, line, style) for line in others)


def _instruction(mark: str, line: Line, style: str) -> Text:
    return Text(f"{mark} {hexadecimal(line.address)}  {visible(line.bytes):<20}  {visible(line.text)}", style=style)


def _data(exhibit: Exhibit) -> Iterator[Text]:
    rows = list(each_row(exhibit.found, exhibit.expected, exhibit.address, rows=_LINES + 1))
    columns = max((max(len(row.found), len(row.expected)) for row in rows), default=0)
    for row in rows:
        changed = any(cell.differs for cell in (*row.found, *row.expected))
        if changed:
            yield _octets("-", row.address, row.expected, "green", columns)
        yield _octets("+" if changed else " ", row.address, row.found, "red" if changed else "", columns)


def _octets(mark: str, address: int, cells: tuple[Cell, ...], style: str, columns: int) -> Text:
    line = Text(f"{mark} {hexadecimal(address)} ")
    for cell in cells:
        line.append(" ")
        line.append(cell.digits, style=f"bold {style}" if cell.differs else "")
    line.append("   " * (columns - len(cells)) + "  " + "".join(cell.ascii for cell in cells))
    return line


def _undecided(out: Console, report: Report) -> None:
    undecided = of(report, Verdict.UNKNOWN, Verdict.INCOMPLETE)
    if not undecided:
        return
    of_all = counted(report.coverage.applicable, "applicable check")
    out.print()
    _say(out, Text(f"could not be decided: {len(undecided)} of {of_all}", style=_STYLE[Verdict.UNKNOWN]))
    alike: dict[tuple[str, ...], list[Finding]] = {}
    for finding in undecided:
        alike.setdefault(reasons(finding), []).append(finding)
    for why, findings in alike.items():
        for finding in findings:
            word = Text(f"{finding.verdict}[{visible(finding.check)}]", style=_STYLE[finding.verdict])
            need = " (required)" if finding.required else ""
            _say(out, Text.assemble(word, f" {visible(finding.title)}{need}"), indent=2)
        for line in _first(why):
            _say(out, Text(visible(line)), indent=6)


def _observations(out: Console, report: Report) -> None:
    seen = [(f.check, o) for f in of(report, *Verdict) for o in f.observations]
    if not seen:
        return
    out.print()
    _say(out, Text(f"observations: {len(seen)}, true and worth knowing, no violations", style="bold cyan"))
    for check, observation in seen:
        _say(out, Text(visible(f"{check}: {_brief(observation)}")), indent=2)


def _folded(out: Console, report: Report) -> None:
    holding = of(report, Verdict.HOLDS)
    absent = of(report, Verdict.NOT_APPLICABLE)
    out.print()
    _say(out, Text.assemble(("holds", _STYLE[Verdict.HOLDS]), f": {counted(len(holding), 'check')}"))
    if absent:
        why = "; ".join(_first(sorted({r for f in absent for r in reasons(f)})))
        _say(out, Text(visible(f"not applicable: {counted(len(absent), 'check')} ({why})")))
    _candidates(out, report)


def _candidates(out: Console, report: Report) -> None:
    """Where the kernel was looked for: a count, or every place if none would do."""
    kept = sum(c.kept for c in report.candidates)
    rejected = len(report.candidates) - kept
    if kept and rejected:
        _say(out, Text(f"descriptions of the kernel: {kept} kept, {rejected} rejected, reasons in the JSON report"))
    elif rejected:
        _say(out, Text("descriptions of the kernel: none could be used"))
        for line in _first([f"{c.what} at {c.where}: {c.reason}" for c in report.candidates]):
            _say(out, Text(visible(line)), indent=2)


def _limits(out: Console, report: Report) -> None:
    if report.limits:
        out.print()
        _say(out, Text("what this report cannot see", style="bold"))
    for limit in report.limits:
        _note(out, "", flowing(limit))


def _again(out: Console, report: Report) -> None:
    """The answer once more where a long report scrolled it away."""
    if report.verdict is Verdict.VIOLATED:
        out.print()
        _say(out, Text(visible(one_line(report)), style=_STYLE[report.verdict]))


def _brief(said: Violation | Observation) -> str:
    where = place(said)
    return f"{where}: {said.message}" if where else said.message


def _note(out: Console, title: str, text: str) -> None:
    """A titled paragraph whose lines stand under its first."""
    if text:
        row = Table.grid(padding=(0, 1, 0, 0))
        row.add_column(no_wrap=True)
        row.add_column(overflow="fold")
        row.add_row(Text(f"= {title}:" if title else "-"), Text(text))
        out.print(Padding(row, (0, 0, 0, 2)))


def _first(lines: Sequence[str]) -> list[str]:
    hidden = len(lines) - _LISTED
    return [*lines[:_LISTED], *([f"and {hidden} more"] if hidden > 0 else [])]


def _say(out: Console, text: Text, *, indent: int = 0) -> None:
    """A line that wraps under itself and breaks words only where one alone is too long."""
    text.overflow = "fold"
    out.print(Padding(text, (0, 0, 0, indent)))
