"""The report as one HTML file: nothing to load, no script, readable on paper and on a phone.

An attacker chooses the names in it. Three things keep them text: Jinja escapes every value, the environment's
``finalize`` passes every string through `visible` before that, and a content security policy forbids all that the
page does not contain; the only style sheet is admitted by its hash (W3C CSP Level 3, section 2.3.1).
"""

import base64
import re
from hashlib import sha256
from itertools import islice

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined

from hypervigil.core.finding import Finding, Verdict, Violation
from hypervigil.core.report import CheckPage, Exhibit, Report
from hypervigil.report.disassembly import side_by_side
from hypervigil.report.hexdump import ROW, each_row, rows_of
from hypervigil.report.memory_map import draw
from hypervigil.report.visible import flowing, visible
from hypervigil.report.wording import (
    bytesize,
    counted,
    coverage,
    foundations,
    headline,
    hexadecimal,
    of,
    pages,
    place,
    ranked,
    reasons,
)

_IN_FULL = 10
"""Violations of one check that are shown in full whatever they have to show; beyond, only those with exhibits."""

_ROWS = 64
"""Rows of a hex dump; a note says how many bytes follow."""

_TILE_COLUMNS = ((64, 16), (256, 28))
"""Tiles in a row up to a number of checks; beyond the last, `_MOST_COLUMNS`."""

_MOST_COLUMNS = 48


_CODE = re.compile(r"`([^`]+)`")


class Shown(msgspec.Struct, frozen=True):
    """A violation with the bytes that prove it."""

    violation: Violation
    exhibits: tuple[Exhibit, ...]


class Card(msgspec.Struct, frozen=True):
    """A violated check: what is shown in full, what is only listed, and what is known of the check."""

    finding: Finding
    full: tuple[Shown, ...]
    listed: tuple[Violation, ...]
    page: CheckPage | None


class Tile(msgspec.Struct, frozen=True):
    """One check in the picture of coverage, with its left upper corner."""

    x: int
    y: int
    finding: Finding
    number: int


def render(report: Report) -> str:
    """The report as a page of its own; the same report gives the same bytes."""
    environment = _environment()
    style = environment.get_template("report.css").render()
    every = ranked(report.findings)
    return environment.get_template("report.html").render(
        report=report,
        style_hash=base64.b64encode(sha256(style.encode()).digest()).decode(),
        headline=headline(report),
        coverage=coverage(report),
        foundations=foundations(report),
        cards=_cards(report),
        undecided=of(report, Verdict.UNKNOWN, Verdict.INCOMPLETE),
        observed=[(finding, seen) for finding in every for seen in finding.observations],
        findings=every,
        tiles=_tiles(every),
        columns=_columns(len(every)),
        picture=draw(report.memory_map, _addresses(report)),
        spans=sorted({span for finding in every for v in finding.violations for span in v.spans}),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hypervigil.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "address": hexadecimal,
        "bytesize": bytesize,
        "counted": counted,
        "paragraphs": _paragraphs,
        "place": place,
        "reasons": reasons,
        "hexrows": _hexrows,
        "hexrest": _hexrest,
        "pairs": _pairs,
        "word": _word,
    }
    return environment


def _shown(value: object) -> object:
    """What a template may print: every string made visible, except markup that the template itself built."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _word(value: str) -> str:
    """A verdict or severity as the name of a style class."""
    return re.sub(r"[^a-z]+", "-", value)


def _paragraphs(text: str) -> list[list[str]]:
    """Paragraphs of prose, each as pieces of which every second stood between backticks and is code."""
    return [_CODE.split(shown) for part in re.split(r"\n[ \t]*\n", text) if (shown := flowing(part))]


def _hexrows(exhibit: Exhibit) -> list[object]:
    return list(each_row(exhibit.found, exhibit.expected, exhibit.address, rows=_ROWS))


def _hexrest(exhibit: Exhibit) -> int:
    """Bytes that the dump leaves out, rounded up to whole rows."""
    return max(rows_of(exhibit.found, exhibit.expected) - _ROWS, 0) * ROW


def _pairs(exhibit: Exhibit) -> list[object]:
    return list(side_by_side(exhibit.before, exhibit.after))


def _cards(report: Report) -> list[Card]:
    about = pages(report)
    return [_card(report, finding, about.get(finding.check)) for finding in of(report, Verdict.VIOLATED)]


def _card(report: Report, finding: Finding, page: CheckPage | None) -> Card:
    proof: dict[int, list[Exhibit]] = {}
    for exhibit in report.exhibits:
        if exhibit.check == finding.check:
            proof.setdefault(exhibit.violation, []).append(exhibit)
    full = [
        (number, violation)
        for number, violation in enumerate(finding.violations)
        if number < _IN_FULL or number in proof
    ]
    chosen = {number for number, _ in full}
    return Card(
        finding=finding,
        full=tuple(Shown(violation, tuple(proof.get(number, ()))) for number, violation in full),
        listed=tuple(v for number, v in enumerate(finding.violations) if number not in chosen),
        page=page,
    )


def _columns(checks: int) -> int:
    return next((columns for limit, columns in _TILE_COLUMNS if checks <= limit), _MOST_COLUMNS)


def _tiles(findings: list[Finding]) -> list[Tile]:
    columns = _columns(len(findings))
    return [Tile(number % columns, number // columns, finding, number) for number, finding in enumerate(findings)]


def _addresses(report: Report) -> list[int]:
    said = (v.address for finding in report.findings for v in finding.violations)
    return [address for address in islice(said, 100_000) if address is not None]
