"""Every check shows what it does: its examples are its tests."""

import pytest

from hypervigil.checks import load_checks
from hypervigil.checks.examples import facts_of
from hypervigil.core.check import Check, Example, judge
from hypervigil.core.facts import Absent, Gap, Unknown
from hypervigil.core.finding import Verdict

CHECKS = load_checks()
EXAMPLES = [(check, example) for check in CHECKS for example in check.about.example]


def _name(value: object) -> str:
    return f"{value.id}" if isinstance(value, Check) else str(getattr(value, "name", value)).replace(" ", "-")


@pytest.mark.parametrize(("check", "example"), EXAMPLES, ids=_name)
def test_example_gives_its_verdict(check: Check, example: Example) -> None:
    finding = judge(check, facts_of(check, example))
    assert finding.verdict is example.verdict, finding
    said = [*(v.message for v in finding.violations), *(o.message for o in finding.observations), finding.why]
    assert any(example.says in text for text in said), said


@pytest.mark.parametrize("check", CHECKS, ids=_name)
def test_check_shows_holds_violated_and_not_seen(check: Check) -> None:
    shown = {example.verdict for example in check.about.example}
    assert {Verdict.HOLDS, Verdict.VIOLATED} <= shown
    assert shown & {Verdict.UNKNOWN}
    assert shown & {Verdict.INCOMPLETE}


@pytest.mark.parametrize(("check", "example"), EXAMPLES, ids=_name)
def test_losing_a_fact_never_gives_holds(check: Check, example: Example) -> None:
    facts = facts_of(check, example)
    for need in check.needs:
        assert judge(check, {**facts, need: Unknown("lost")}).verdict is not Verdict.HOLDS
        without = {kind: fact for kind, fact in facts.items() if kind is not need}
        assert judge(check, without).verdict is not Verdict.HOLDS


@pytest.mark.parametrize(("check", "example"), EXAMPLES, ids=_name)
def test_a_gap_never_gives_holds(check: Check, example: Example) -> None:
    facts = facts_of(check, example)
    for need in check.needs:
        fact = facts[need]
        if isinstance(fact, Unknown | Absent):
            continue
        holed = type(fact)(**{n: getattr(fact, n) for n in fact.__struct_fields__} | {"gaps": (Gap("a", "b"),)})
        assert judge(check, {**facts, need: holed}).verdict in {Verdict.INCOMPLETE, Verdict.VIOLATED}


@pytest.mark.parametrize(("check", "example"), EXAMPLES, ids=_name)
def test_same_facts_same_finding(check: Check, example: Example) -> None:
    assert judge(check, facts_of(check, example)) == judge(check, facts_of(check, example))
