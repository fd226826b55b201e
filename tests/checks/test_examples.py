import msgspec
import pytest

from hypervigil.checks import load_checks
from hypervigil.checks.examples import facts_of
from hypervigil.core.check import Check, Example
from hypervigil.core.errors import ProgramError
from hypervigil.core.evidence import Span
from hypervigil.core.facts import Absent, Gap, Unknown
from hypervigil.core.finding import Verdict
from hypervigil.facts.kernel import Tasks

CHECK: Check = next(check for check in load_checks() if check.needs == (Tasks,))
MEMBER = {"key": 1, "name": "n", "views": ["a"], "span": [["image", 4, 8]]}


def example(facts: dict[str, dict[str, object]]) -> Example:
    return Example(name="a case", verdict=Verdict.HOLDS, facts=facts)


def test_data_becomes_the_facts_that_it_describes() -> None:
    data = {"views": ["a", "b"], "members": [MEMBER], "gaps": [{"what": "w", "why": "y"}]}
    found = facts_of(CHECK, example({"Tasks": data}))[Tasks]
    assert isinstance(found, Tasks)
    assert found.members[0].span == (Span("image", 4, 8),)
    assert found.views == ("a", "b")
    assert found.gaps == (Gap("w", "y"),)


def test_facts_may_be_unknown_or_absent() -> None:
    assert facts_of(CHECK, example({"Tasks": {"unknown": "lost"}})) == {Tasks: Unknown("lost")}
    assert facts_of(CHECK, example({"Tasks": {"absent": "none"}})) == {Tasks: Absent("none")}
    assert facts_of(CHECK, example({})) == {}


def test_a_fact_that_the_check_does_not_read_is_refused() -> None:
    with pytest.raises(ProgramError, match=rf"{CHECK.id}, example 'a case': {CHECK.name} does not read Modules"):
        facts_of(CHECK, example({"Modules": {"unknown": "lost"}}))


@pytest.mark.parametrize(
    "data",
    [
        {"views": "a"},
        {"views": ["a", "b"]},
        {"views": ["a", "b"], "members": [MEMBER | {"span": [["image", 4]]}]},
        {"views": ["a", "b"], "members": [MEMBER | {"key": "one"}]},
    ],
)
def test_data_of_another_shape_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ProgramError, match="example 'a case'"):
        facts_of(CHECK, example({"Tasks": data}))


def test_a_span_is_told_from_other_lists_of_three() -> None:
    member = MEMBER | {"views": ["a", "b", "c"]}
    found = facts_of(CHECK, example({"Tasks": {"views": ["a", "b", "c"], "members": [member]}}))[Tasks]
    assert msgspec.to_builtins(found)["views"] == ("a", "b", "c")
