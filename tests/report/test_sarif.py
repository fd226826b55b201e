import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from hypervigil.core.evidence import Evidence, Span
from hypervigil.core.finding import Severity, Verdict, Violation
from hypervigil.core.report import Report
from hypervigil.report.sarif import render
from hypervigil.report.wording import hexadecimal
from tests.report import reports
from tests.report.golden import assert_golden
from tests.report.sarif_rules import LOG
from tests.report.strategies import ANY_TEXT
from tests.report.strategies import reports as any_reports


def run_of(report: Report) -> dict[str, Any]:
    log: dict[str, Any] = json.loads(render(report))
    jsonschema.Draft202012Validator(LOG).validate(log)
    run: dict[str, Any] = log["runs"][0]
    return run


def prints_of(report: Report) -> list[str]:
    return [result["partialFingerprints"]["hypervigil/v1"] for result in run_of(report)["results"]]


def violated_by(*violations: Violation) -> Report:
    return reports.report((reports.finding("A-1", "a", Verdict.VIOLATED, violations=violations),))


def slot(name: str, address: int) -> Violation:
    return Violation(
        message=f"leads to {address:#x}", spans=(Span("image", address, address + 8),), object=name, address=address
    )


@pytest.mark.parametrize("name", ["clean", "violated", "undecided", "hostile"])
def test_the_output_is_the_stored_one(name: str) -> None:
    assert_golden(f"{name}.sarif", render(getattr(reports, name)()))


def test_each_verdict_has_its_kind() -> None:
    run = run_of(reports.violated())
    kinds = {(result["ruleId"], result["kind"]) for result in run["results"]}
    assert {
        ("KVM-001", "fail"),
        ("KVM-009", "open"),
        ("KRN-012", "open"),
        ("KRN-001", "pass"),
        ("XEN-001", "notApplicable"),
        ("TRC-002", "review"),
        ("TRC-002", "pass"),
    } <= kinds
    assert ("KVM-001", "pass") not in kinds


@pytest.mark.parametrize(
    ("severity", "level", "score"),
    [
        (Severity.CRITICAL, "error", "9.5"),
        (Severity.HIGH, "error", "8.0"),
        (Severity.MEDIUM, "warning", "5.5"),
        (Severity.LOW, "note", "2.0"),
    ],
)
def test_severity_decides_the_level(severity: Severity, level: str, score: str) -> None:
    found = reports.finding("A-1", "a", Verdict.VIOLATED, severity, violations=(reports.slot_violation(),))
    run = run_of(reports.report((found,)))
    assert run["results"][0]["level"] == level
    assert run["tool"]["driver"]["rules"][0]["properties"]["security-severity"] == score


def test_a_result_points_at_the_bytes_in_the_evidence() -> None:
    run = run_of(reports.violated())
    result = run["results"][0]
    place = result["locations"][0]["physicalLocation"]
    assert place["region"] == {"byteOffset": 0x1F3A_12C0, "byteLength": 8}
    assert run["artifacts"][place["artifactLocation"]["index"]]["properties"]["id"] == "image"
    related = result["relatedLocations"][0]["physicalLocation"]
    assert related["region"] == {"byteOffset": 0x0B40_1000, "byteLength": 32}


def test_a_result_says_what_was_found_and_expected_as_far_as_that_is_known() -> None:
    span = (Span("image", 0, 8),)
    for violation, text in (
        (Violation(message="m", spans=span), "m"),
        (Violation(message="m", spans=span, found="a"), "m\nfound: a"),
        (Violation(message="m", spans=span, found="a", expected="b"), "m\nfound: a\nexpected: b"),
    ):
        assert run_of(violated_by(violation))["results"][0]["message"]["text"] == text


def test_artifacts_carry_digests_under_their_registered_names() -> None:
    artifacts = {artifact["properties"]["id"]: artifact for artifact in run_of(reports.clean())["artifacts"]}
    assert artifacts["package"]["hashes"] == {"sha-256": "a1" * 32}
    assert artifacts["image"]["hashes"] == {"sha256-4m": "5f" * 32}
    assert artifacts["image"]["length"] == 512 * 1024**2
    assert artifacts["image"]["properties"]["chunks"] == {"45": "0c" * 32, "124": "d7" * 32}


def test_the_invocation_tells_the_exit_status_and_each_gap_once() -> None:
    (invocation,) = run_of(reports.violated())["invocations"]
    assert invocation["exitCode"] == 1
    told = {note["message"]["text"]: note["properties"]["checks"] for note in invocation["toolExecutionNotifications"]}
    assert told["not seen: page table at physical 0x1fe03000: not in the image"] == ["KRN-007", "KVM-009"]
    assert len(told) == 2


def test_a_rule_explains_itself() -> None:
    rules = {rule["id"]: rule for rule in run_of(reports.violated())["tool"]["driver"]["rules"]}
    rule = rules["KVM-001"]
    assert rule["name"] == "Kvm001"
    assert rule["shortDescription"]["text"] == "KVM dispatch slots lead to KVM functions"
    assert "**What to do**\n\nTreat the host" in rule["help"]["markdown"]
    assert "What it cannot see: A hook placed inside" in rule["help"]["text"]


def test_a_check_without_a_page_is_still_a_rule() -> None:
    run = run_of(reports.report(reports.passed(), checks=()))
    assert len(run["tool"]["driver"]["rules"]) == 7


def test_fingerprints_outlive_a_boot_that_moves_addresses() -> None:
    before, after = slot("ops.run", 0xFFFF_FFFF_C000_0000), slot("ops.run", 0xFFFF_FFFF_C0FF_F000)
    assert prints_of(violated_by(before)) == prints_of(violated_by(after))
    nameless = [replace(violation, object="") for violation in (before, after)]
    assert prints_of(violated_by(nameless[0])) == prints_of(violated_by(nameless[1]))


def test_fingerprints_tell_slots_apart() -> None:
    first, second = slot("sys_call_table[59]", 0x1000), slot("sys_call_table[60]", 0x1008)
    assert len(set(prints_of(violated_by(first, second)))) == 2
    assert len(set(prints_of(violated_by(first, first)))) == 2


def test_an_evidence_name_is_data_and_no_path() -> None:
    evil = Evidence(id="image", kind="memory/raw", name="../../etc/passwd?x#y javascript:", size=1)
    (artifact,) = run_of(reports.report(reports.passed(), evidence=(evil,)))["artifacts"]
    assert artifact["location"]["uri"] == "./..%2F..%2Fetc%2Fpasswd%3Fx%23y%20javascript%3A"


@settings(max_examples=30)
@given(any_reports(ANY_TEXT))
def test_any_report_renders_and_shows_every_violation(report: Report) -> None:
    assert render(report) == render(report)
    run = run_of(report)
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    said = "".join(result["message"]["text"] for result in run["results"] if result["kind"] == "fail")
    for violation in (v for finding in report.findings for v in finding.violations):
        assert violation.message.encode("utf-8", "backslashreplace").decode() in said
        assert violation.address is None or hexadecimal(violation.address) in said
