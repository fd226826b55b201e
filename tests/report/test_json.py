import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError, EvidenceError, UnsupportedEvidence
from hypervigil.core.report import Report
from hypervigil.report.json import read_json, render, schema
from hypervigil.report.visible import hides
from tests.report import reports
from tests.report.golden import assert_golden
from tests.report.strategies import ANY_TEXT, ENCODABLE_TEXT
from tests.report.strategies import reports as any_reports

PUBLISHED = Path(__file__).parents[2] / "docs" / "reference" / "report-schema-1.json"

Document = dict[str, Any]
"""A decoded report: edited blindly, so that the reader has something to refuse."""


@pytest.mark.parametrize("name", ["clean", "violated", "undecided", "hostile"])
def test_the_output_is_the_stored_one(name: str) -> None:
    assert_golden(f"{name}.json", render(getattr(reports, name)()))


def test_the_published_schema_is_the_generated_one() -> None:
    assert PUBLISHED.read_text() == schema()


@pytest.mark.parametrize("name", ["clean", "violated", "undecided", "hostile", "huge"])
def test_output_validates_against_the_published_schema(name: str) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text()))
    validator.validate(json.loads(render(getattr(reports, name)())))


def test_the_schema_refuses_what_is_no_report() -> None:
    document = json.loads(render(reports.violated()))
    document["memory_map"][0]["start"] = 4096
    validator = jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text()))
    assert [error.json_path for error in validator.iter_errors(document)] == ["$.memory_map[0].start"]


@settings(max_examples=40)
@given(any_reports(ENCODABLE_TEXT))
def test_a_report_survives_writing_and_reading(report: Report) -> None:
    text = render(report)
    assert read_json(text.encode()) == report
    assert render(read_json(text.encode())) == text


@settings(max_examples=40)
@given(any_reports(ANY_TEXT))
def test_any_report_renders_and_shows_every_violation(report: Report) -> None:
    text = render(report)
    assert text == render(report)
    written = [v for finding in json.loads(text)["findings"] for v in finding["violations"]]
    violations = [v for finding in report.findings for v in finding.violations]
    for shown, violation in zip(written, violations, strict=True):
        assert shown["message"] == violation.message.encode("utf-8", "backslashreplace").decode()
        assert shown["address"] == (None if violation.address is None else hex(violation.address))


def test_keys_are_sorted_indented_by_two_and_end_in_a_newline() -> None:
    text = render(reports.clean())
    document = json.loads(text)
    assert list(document) == sorted(document)
    assert text.startswith('{\n  "candidates": [\n    {\n')
    assert text.endswith("}\n")


@settings(max_examples=40)
@given(any_reports(ANY_TEXT))
def test_no_character_in_it_can_steer_a_terminal(report: Report) -> None:
    assert not any(hides(character) for character in render(report).replace("\n", ""))


def test_what_is_escaped_is_read_back_the_same() -> None:
    limits = ("\x9b2J", "\u202egnp", "\U000e0041", "Jürgen \U0001f600")
    text = render(reports.report((), limits=limits))
    assert r'"\u009b2J"' in text
    assert r'"\udb40\udc41"' in text
    assert '"Jürgen \U0001f600"' in text
    assert read_json(text.encode()).limits == limits


def test_addresses_are_text_so_that_double_precision_cannot_round_them() -> None:
    document = json.loads(render(reports.violated()))
    assert all(isinstance(region[side], str) for region in document["memory_map"] for side in ("start", "end"))
    assert document["findings"][6]["violations"][0]["address"] == "0xffffffffc0a1b2c0"
    assert isinstance(document["findings"][6]["violations"][0]["spans"][0]["start"], int)


def _edited(change: Callable[[Document], object]) -> bytes:
    document = json.loads(render(reports.violated()))
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.0", "", "x"])
def test_another_major_version_is_refused_by_name(version: str) -> None:
    with pytest.raises(UnsupportedEvidence, match=r"report schema .* is not 1\.x"):
        read_json(_edited(lambda document: document.update(schema_version=version)))


def test_a_later_minor_version_is_read_without_what_it_added() -> None:
    later = _edited(lambda document: document.update(schema_version="1.7", added_in_1_7=True))
    assert read_json(later).schema_version == "1.7"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"\xff", "malformed"),
        (b'"\xff"', "utf-8"),
        (b"[]", "no schema_version"),
        (b"{}", "no schema_version"),
        (b'{"schema_version": 1}', "no schema_version"),
        (b'{"schema_version": "1.0"}', "missing required field"),
        (b"[" * 100_000, "recursion"),
        (b'{"schema_version":"1.0","limits":' + b"[" * 400 + b"]" * 400 + b"}", "Expected|missing|recursion"),
    ],
)
def test_what_is_no_report_is_a_decode_error(data: bytes, says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        read_json(data)


def _first_violated(document: Document) -> Document:
    findings = document["findings"]
    assert isinstance(findings, list)
    found: Document = next(f for f in findings if f["verdict"] == "violated")
    return found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(verdict="holds", exit_status=0), "says holds"),
        (lambda d: d.update(exit_status=0), "exit status 0"),
        (lambda d: d["coverage"].update(decided=11), "coverage"),
        (lambda d: _first_violated(d).update(verdict="holds"), "verdict holds with 1 violations"),
        (lambda d: _first_violated(d).update(violations=[]), "verdict violated with 0 violations"),
        (lambda d: d["findings"][0].update(gaps=[{"what": "a", "why": "b"}]), "parts of what it reads"),
        (lambda d: _first_violated(d)["violations"][0].update(spans=[]), "without evidence"),
        (lambda d: _first_violated(d)["violations"][0]["spans"][0].update(end=0), "is not a range"),
        (lambda d: _first_violated(d)["violations"][0].update(address=5), "Expected `int"),
        (lambda d: _first_violated(d)["violations"][0].update(address="5"), "Expected `int"),
        (lambda d: _first_violated(d).update(verdict="fine"), "Invalid enum value"),
    ],
)
def test_a_contradiction_is_refused(change: Callable[[Document], object], says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        read_json(_edited(change))


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_any_bytes_give_a_report_or_an_evidence_error(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        read_json(data)
