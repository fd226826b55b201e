"""Arbitrary reports, as the engine could give them: strings of any characters, verdicts that fit their findings."""

from typing import TypeVar

from hypothesis import strategies as st
from msgspec.structs import replace

from hypervigil.core.evidence import Evidence, Span
from hypervigil.core.facts import Gap
from hypervigil.core.finding import Confidence, Finding, Observation, Severity, Verdict, Violation
from hypervigil.core.report import (
    Candidate,
    CheckPage,
    Exhibit,
    Line,
    Property,
    Region,
    Report,
    RunRecord,
    coverage_of,
    overall,
)

T = TypeVar("T")

ADDRESSES = st.integers(0, 2**64 - 1)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
"""Lone surrogates, controls and unassigned characters included."""

ENCODABLE_TEXT = st.text(max_size=12)


def spans(text: st.SearchStrategy[str]) -> st.SearchStrategy[Span]:
    return st.builds(
        lambda name, start, size: Span(name, start, start + size), text, st.integers(0, 2**48), st.integers(1, 2**20)
    )


def violations(text: st.SearchStrategy[str]) -> st.SearchStrategy[Violation]:
    return st.builds(
        Violation,
        message=text,
        spans=st.lists(spans(text), min_size=1, max_size=3).map(tuple),
        object=text,
        address=st.none() | ADDRESSES,
        found=text,
        expected=text,
    )


def findings(text: st.SearchStrategy[str]) -> st.SearchStrategy[Finding]:
    def of(verdict: Verdict) -> st.SearchStrategy[Finding]:
        violated, gappy = verdict is Verdict.VIOLATED, verdict is not Verdict.HOLDS
        return st.builds(
            Finding,
            check=text,
            title=text,
            verdict=st.just(verdict),
            severity=st.sampled_from(Severity),
            confidence=st.sampled_from(Confidence),
            required=st.booleans(),
            why=text,
            violations=_tuples(violations(text), at_least=1, at_most=7) if violated else st.just(()),
            observations=_tuples(
                st.builds(
                    Observation,
                    message=text,
                    object=text,
                    address=st.none() | ADDRESSES,
                    spans=_tuples(spans(text), at_most=2),
                )
            ),
            gaps=_tuples(st.builds(Gap, text, text)) if gappy else st.just(()),
            rests_on=_tuples(text),
        )

    return st.sampled_from(Verdict).flatmap(of)


def exhibits(text: st.SearchStrategy[str]) -> st.SearchStrategy[Exhibit]:
    digits = st.binary(max_size=40).map(bytes.hex) | text
    lines = _tuples(st.builds(Line, ADDRESSES, digits, text))
    return st.builds(
        Exhibit,
        check=text,
        violation=st.integers(0, 4),
        title=text,
        address=st.none() | ADDRESSES,
        spans=_tuples(spans(text)),
        found=digits,
        expected=digits,
        after=lines,
        before=lines,
        note=text,
    )


def evidence(text: st.SearchStrategy[str]) -> st.SearchStrategy[Evidence]:
    return st.builds(
        Evidence,
        id=text,
        kind=text,
        name=text,
        size=st.integers(0, 2**50),
        digest=text,
        acquired=text,
        chunks=_tuples(st.tuples(st.integers(0, 2**20), text)),
        notes=_tuples(text),
    )


def pages(text: st.SearchStrategy[str]) -> st.SearchStrategy[CheckPage]:
    return st.builds(
        CheckPage,
        check=text,
        name=text,
        rationale=text,
        remedy=text,
        false_positives=text,
        cannot_see=text,
        standards=_tuples(text),
        sources=_tuples(text),
    )


def runs(text: st.SearchStrategy[str]) -> st.SearchStrategy[RunRecord]:
    data_sets = _tuples(st.builds(Property, text, text))
    return st.builds(
        RunRecord, tool_version=text, command=text, target=text, profile=text, as_of=text, data_sets=data_sets
    )


def reports(text: st.SearchStrategy[str]) -> st.SearchStrategy[Report]:
    region = st.builds(Region, start=ADDRESSES, end=ADDRESSES, owner=text, kind=text, writable=st.booleans())
    candidate = st.builds(Candidate, what=text, where=text, kept=st.booleans(), reason=text)
    return st.fixed_dictionaries(
        {
            "run": runs(text),
            "evidence": _tuples(evidence(text)),
            "subject": _tuples(st.builds(Property, text, text)),
            "candidates": _tuples(candidate),
            "findings": _tuples(findings(text), at_most=5),
            "exhibits": _tuples(exhibits(text)),
            "memory_map": _tuples(region),
            "checks": _tuples(pages(text)),
            "limits": _tuples(text),
        }
    ).map(_report)


def _report(parts: dict[str, object]) -> Report:
    said = parts["findings"]
    assert isinstance(said, tuple)
    shown = parts["exhibits"]
    assert isinstance(shown, tuple)
    if said:  # otherwise hardly any exhibit would belong to a finding
        shown = tuple(replace(exhibit, check=said[at % len(said)].check) for at, exhibit in enumerate(shown))
    verdict, status = overall(said)
    return Report(verdict=verdict, exit_status=status, coverage=coverage_of(said), **parts | {"exhibits": shown})  # type: ignore[arg-type]  # each strategy above gives its field's type


def _tuples(items: st.SearchStrategy[T], *, at_least: int = 0, at_most: int = 3) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(items, min_size=at_least, max_size=at_most).map(tuple)
