"""The report as SARIF 2.1.0, the exchange format of analysis tools (OASIS standard, with errata 01, 2023).

Section numbers below are those of that standard. A violation is a result of kind ``fail`` whose level follows the
check's severity; every other verdict is a result as well, with kind ``open`` (unknown, incomplete), ``pass``,
``notApplicable`` or, for an observation, ``review``, all with level ``none`` as 3.27.10 demands. What was not seen
is a notification of the invocation. Locations are byte ranges of the evidence (3.30.9), which is listed as artifacts.
"""

import re
from hashlib import sha256
from urllib.parse import quote

import msgspec

from hypervigil.core.evidence import Evidence, Span
from hypervigil.core.finding import Confidence, Finding, Observation, Severity, Verdict, Violation
from hypervigil.core.report import Report
from hypervigil.report.json import pretty
from hypervigil.report.visible import storable
from hypervigil.report.wording import coverage, headline, hexadecimal, pages, place, ranked, reasons

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVEL = {Severity.CRITICAL: "error", Severity.HIGH: "error", Severity.MEDIUM: "warning", Severity.LOW: "note"}
_SCORE = {Severity.CRITICAL: "9.5", Severity.HIGH: "8.0", Severity.MEDIUM: "5.5", Severity.LOW: "2.0"}
_PRECISION = {Confidence.HIGH: "very-high", Confidence.MEDIUM: "high", Confidence.LOW: "medium"}
_KIND = {
    Verdict.UNKNOWN: "open",
    Verdict.INCOMPLETE: "open",
    Verdict.HOLDS: "pass",
    Verdict.NOT_APPLICABLE: "notApplicable",
}
_EXIT = {0: "all required checks hold", 1: "a check is violated", 3: "not fully seen"}
_HASHES = {"sha1": "sha-1", "sha256": "sha-256", "sha384": "sha-384", "sha512": "sha-512"}
_LISTED = 8
_MOVING = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b", re.IGNORECASE)

Json = dict[str, object]


class _Index(msgspec.Struct, frozen=True):
    """Where each check's rule and each evidence's artifact stand in their arrays."""

    rules: dict[str, int]
    artifacts: dict[str, int]


def render(report: Report) -> str:
    """The report as a SARIF log of one run; the same report gives the same bytes."""
    findings = ranked(report.findings)
    evidence = {item.id: item for item in reversed(report.evidence)}
    index = _Index(
        {check: at for at, check in enumerate(sorted({f.check for f in findings}))},
        {name: at for at, name in enumerate(sorted(evidence))},
    )
    run: Json = {
        "tool": {"driver": _driver(report)},
        "automationDetails": {"id": f"hypervigil/{report.run.command}/{report.run.target}"},
        "artifacts": [_artifact(evidence[name]) for name in index.artifacts],
        "invocations": [_invocation(report, index)],
        "results": [result for finding in findings for result in _results(finding, index)],
        "properties": {
            "verdict": report.verdict,
            "coverage": coverage(report),
            "asOf": report.run.as_of,
            "subject": {p.name: p.value for p in report.subject},
            "limits": list(report.limits),
        },
    }
    return pretty(storable(msgspec.to_builtins({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})))


def _driver(report: Report) -> Json:
    about = {f.check: f for f in reversed(ranked(report.findings))}
    return {
        "name": "hypervigil",
        "version": report.run.tool_version,
        "rules": [_rule(report, about[check]) for check in sorted(about)],
    }


def _rule(report: Report, finding: Finding) -> Json:
    rule: Json = {
        "id": finding.check,
        "shortDescription": {"text": finding.title},
        "defaultConfiguration": {"level": _LEVEL[finding.severity]},
        "properties": {
            "precision": _PRECISION[finding.confidence],
            "security-severity": _SCORE[finding.severity],
            "tags": ["security"],
        },
    }
    page = pages(report).get(finding.check)
    if page is None:
        return rule
    parts = {
        "Why it matters": page.rationale,
        "What to do": page.remedy,
        "Known to violate it without malice": page.false_positives,
        "What it cannot see": page.cannot_see,
        "Standards": ", ".join(page.standards),
        "Sources": "\n".join(page.sources),
    }
    told = {title: text.strip() for title, text in parts.items() if text.strip()}
    return rule | {
        "name": "".join(word.capitalize() for word in page.name.split("_")),
        "fullDescription": {"text": page.rationale},
        "help": {
            "text": "\n\n".join(f"{title}: {text}" for title, text in told.items()),
            "markdown": "\n\n".join(f"**{title}**\n\n{text}" for title, text in told.items()),
        },
    }


def _artifact(evidence: Evidence) -> Json:
    artifact: Json = {
        "location": _location_of(evidence.name),
        "description": {"text": f"{evidence.id}: {evidence.kind}"},
        "length": evidence.size,
        "roles": ["analysisTarget"],
        "properties": {
            "id": evidence.id,
            "kind": evidence.kind,
            "notes": list(evidence.notes),
            "chunks": {str(index): digest for index, digest in evidence.chunks},
        },
    }
    if evidence.acquired:
        artifact["description"] = {"text": f"{evidence.id}: {evidence.kind}, {evidence.acquired}"}
    algorithm, _, value = evidence.digest.partition(":")
    if value:
        artifact["hashes"] = {_HASHES.get(algorithm, algorithm): value}
    return artifact


def _location_of(name: str) -> Json:
    """The evidence's file name as a relative URI reference (RFC 3986): it is data, never a scheme or a path up."""
    return {"uri": "./" + quote(name, safe="", errors="backslashreplace")}


def _invocation(report: Report, index: _Index) -> Json:
    checks_of: dict[tuple[str, str], set[str]] = {}
    for finding in report.findings:
        for gap in finding.gaps:
            checks_of.setdefault((gap.what, gap.why), set()).add(finding.check)
    return {
        "executionSuccessful": True,
        "exitCode": report.exit_status,
        "exitCodeDescription": _EXIT.get(report.exit_status, "see the verdict"),
        "toolExecutionNotifications": [
            {
                "level": "warning",
                "message": {"text": f"not seen: {what}: {why}"},
                "associatedRule": _rule_reference(min(checks), index),
                "properties": {"checks": sorted(checks)},
            }
            for (what, why), checks in sorted(checks_of.items())
        ],
        "properties": {"headline": headline(report), "profile": report.run.profile},
    }


def _rule_reference(check: str, index: _Index) -> Json:
    return {"id": check, "index": index.rules[check]}


def _results(finding: Finding, index: _Index) -> list[Json]:
    named = [_failed(finding, violation, index) for violation in finding.violations]
    named += [_observed(finding, observation, index) for observation in finding.observations]
    if finding.verdict in _KIND:
        named.append(_judged(finding, index))
    seen: dict[str, int] = {}
    results = []
    for what, result in named:
        print_of = _fingerprint(finding.check, str(result["kind"]), what)
        seen[print_of] = seen.get(print_of, 0) + 1
        results.append(result | {"partialFingerprints": {"hypervigil/v1": f"{print_of}:{seen[print_of]}"}})
    return results


def _failed(finding: Finding, violation: Violation, index: _Index) -> tuple[str, Json]:
    lines = [_said(violation)]
    lines += [f"found: {violation.found}"] if violation.found else []
    lines += [f"expected: {violation.expected}"] if violation.expected else []
    result = _result(finding, "fail", "\n".join(lines), index)
    level: Json = {"level": _LEVEL[finding.severity]}
    return violation.object or violation.message, result | level | _locations(violation, index)


def _observed(finding: Finding, observation: Observation, index: _Index) -> tuple[str, Json]:
    result = _result(finding, "review", _said(observation), index)
    return observation.object or observation.message, result | _locations(observation, index)


def _judged(finding: Finding, index: _Index) -> tuple[str, Json]:
    text = (
        finding.title
        if finding.verdict is Verdict.HOLDS
        else f"{finding.verdict}: {'; '.join(reasons(finding)[:_LISTED])}"
    )
    return "", _result(finding, _KIND[finding.verdict], text, index)


def _said(said: Violation | Observation) -> str:
    where = place(said)
    return f"{where}: {said.message}" if where else said.message


def _result(finding: Finding, kind: str, text: str, index: _Index) -> Json:
    return {
        "ruleId": finding.check,
        "ruleIndex": index.rules[finding.check],
        "kind": kind,
        "level": "none",
        "message": {"text": text},
        "properties": {
            "verdict": finding.verdict,
            "confidence": finding.confidence,
            "required": finding.required,
            "restsOn": list(finding.rests_on),
        },
    }


def _locations(said: Violation | Observation, index: _Index) -> Json:
    """The first range as the place of the result (3.27.12 asks for one), the others as related (3.27.22)."""
    places = [_location(span, index) for span in said.spans] or [{}]
    logical = _logical(said)
    if logical:
        places[0]["logicalLocations"] = [logical]
    located: Json = {"locations": places[:1]} if places[0] else {}
    if len(places) > 1:
        located["relatedLocations"] = [{"id": number, **place} for number, place in enumerate(places[1:], 1)]
    return located


def _location(span: Span, index: _Index) -> Json:
    artifact: Json = {"description": {"text": span.evidence}}
    if span.evidence in index.artifacts:
        artifact["index"] = index.artifacts[span.evidence]
    region = {"byteOffset": span.start, "byteLength": span.size}
    return {"physicalLocation": {"artifactLocation": artifact, "region": region}}


def _logical(said: Violation | Observation) -> Json:
    """The altered thing in the kernel's terms; the address is text, since readers of JSON round numbers over 2^53."""
    logical: Json = {"fullyQualifiedName": said.object} if said.object else {}
    if said.address is not None:
        logical["properties"] = {"virtualAddress": hexadecimal(said.address)}
    return logical


def _fingerprint(check: str, kind: str, what: str) -> str:
    """The same for the same statement in another boot: addresses, which KASLR moves, do not take part."""
    stable = "\0".join((check, kind, _MOVING.sub("#", what)))
    return sha256(stable.encode("utf-8", "backslashreplace")).hexdigest()[:32]
