from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.check import Example, Metadata, check, check_id_of, judge, needs_of, unjudged
from hypervigil.core.errors import ProgramError
from hypervigil.core.facts import Absent, Fact, FactOutcome, Gap, Unknown
from hypervigil.core.finding import Confidence, Finding, Observation, Severity, Verdict, Violation
from tests.core.samples import METADATA, SPAN, Door, Lock, Window, door_is_locked, loaded, saying

DOOR = Door(handles=("left", "right"), rests_on=("symbols",))
LOCKED = Lock(rests_on=("types", "symbols"))
OPEN = Lock(open=True)
GAP = Gap("hinge", "not in the image")
SUBJECT = loaded(door_is_locked)


GAPPY_DOOR = Door(handles=("left", "right"), rests_on=("symbols",), gaps=(GAP,))


def given_facts(door: FactOutcome, lock: FactOutcome) -> dict[type[Fact], FactOutcome]:
    return {Door: door, Lock: lock}


def violation(message: str, *, name: str = "", address: int | None = None) -> Violation:
    return Violation(message=message, spans=(SPAN,), object=name, address=address)


class TestVerdict:
    def test_all_facts_whole_and_nothing_yielded_holds(self) -> None:
        assert judge(SUBJECT, given_facts(DOOR, LOCKED)).verdict is Verdict.HOLDS

    def test_a_violation_is_violated(self) -> None:
        finding = judge(SUBJECT, given_facts(DOOR, OPEN))
        assert finding.verdict is Verdict.VIOLATED
        assert [v.message for v in finding.violations] == ["left opens", "right opens"]

    @pytest.mark.parametrize("facts", [given_facts(GAPPY_DOOR, LOCKED), given_facts(DOOR, Lock(gaps=(GAP,)))])
    def test_a_gap_in_any_fact_is_incomplete(self, facts: dict[type[Fact], FactOutcome]) -> None:
        finding = judge(SUBJECT, facts)
        assert finding.verdict is Verdict.INCOMPLETE
        assert finding.gaps == (GAP,)
        assert finding.why == ""

    def test_a_violation_outweighs_a_gap_and_keeps_it(self) -> None:
        finding = judge(SUBJECT, given_facts(GAPPY_DOOR, OPEN))
        assert finding.verdict is Verdict.VIOLATED
        assert finding.gaps == (GAP,)

    def test_an_observation_alone_holds_and_is_kept(self) -> None:
        finding = judge(SUBJECT, given_facts(Door(handles=("strange",)), LOCKED))
        assert finding.verdict is Verdict.HOLDS
        assert finding.observations == (Observation(message="handle strange is new", object="strange"),)
        assert finding.violations == ()

    def test_an_observation_does_not_excuse_a_gap(self) -> None:
        facts = given_facts(Door(handles=("strange",), gaps=(GAP,)), LOCKED)
        assert judge(SUBJECT, facts).verdict is Verdict.INCOMPLETE

    def test_an_unknown_fact_is_unknown_with_its_reason(self) -> None:
        finding = judge(SUBJECT, given_facts(DOOR, Unknown("no types")))
        assert finding.verdict is Verdict.UNKNOWN
        assert finding.why == "no types"

    def test_reasons_are_sorted_and_told_once(self) -> None:
        assert judge(SUBJECT, given_facts(Unknown("z"), Unknown("a"))).why == "a; z"
        assert judge(SUBJECT, given_facts(Unknown("a"), Unknown("a"))).why == "a"

    def test_a_fact_nobody_mentions_is_unknown_and_named(self) -> None:
        finding = judge(SUBJECT, {Door: DOOR})
        assert finding.verdict is Verdict.UNKNOWN
        assert finding.why == "Lock was not extracted"

    def test_an_absent_fact_is_not_applicable_with_its_reason(self) -> None:
        finding = judge(SUBJECT, given_facts(DOOR, Absent("this house has no locks")))
        assert finding.verdict is Verdict.NOT_APPLICABLE
        assert finding.why == "this house has no locks"

    def test_the_unknown_outweighs_the_absent(self) -> None:
        finding = judge(SUBJECT, given_facts(Unknown("dark"), Absent("no locks")))
        assert finding.verdict is Verdict.UNKNOWN
        assert finding.why == "dark"

    def test_gaps_of_what_was_seen_are_told_even_where_the_verdict_is_unknown(self) -> None:
        facts = given_facts(GAPPY_DOOR, Unknown("dark"))
        assert judge(SUBJECT, facts).gaps == (GAP,)

    def test_a_fact_that_the_check_does_not_read_changes_nothing(self) -> None:
        facts = given_facts(DOOR, LOCKED)
        more: dict[type[Fact], FactOutcome] = {**facts, Window: Unknown("dark")}
        assert judge(SUBJECT, facts) == judge(SUBJECT, more)


class TestCalling:
    @pytest.mark.parametrize("outcome", [Unknown("dark"), Absent("no door")])
    def test_a_check_without_its_facts_is_never_called(self, outcome: FactOutcome) -> None:
        @check("DOR-003")
        def explodes(door: Door, lock: Lock) -> Iterator[Violation]:
            raise AssertionError((door, lock))

        judge(loaded(explodes), given_facts(outcome, LOCKED))
        judge(loaded(explodes), given_facts(DOOR, outcome))

    def test_facts_arrive_in_the_order_of_the_parameters(self) -> None:
        seen: list[Fact] = []

        @check("DOR-004")
        def remembers(lock: Lock, door: Door) -> Iterator[Violation]:
            seen.extend((lock, door))
            yield from ()

        judge(loaded(remembers), given_facts(DOOR, LOCKED))
        assert seen == [LOCKED, DOOR]

    def test_a_check_that_fails_raises_for_its_caller_to_report(self) -> None:
        @check("DOR-005")
        def fails(door: Door) -> Iterator[Violation]:
            yield violation(str(1 // len(door.gaps)))

        with pytest.raises(ZeroDivisionError):
            judge(loaded(fails), {Door: DOOR})


class TestFinding:
    def test_it_carries_what_the_metadata_says(self) -> None:
        finding = judge(SUBJECT, given_facts(DOOR, LOCKED))
        assert finding.check == "DOR-001"
        assert finding.title == "the door is locked"
        assert finding.severity is Severity.HIGH
        assert finding.confidence is Confidence.MEDIUM

    def test_it_rests_on_what_its_facts_rest_on_sorted_and_once(self) -> None:
        assert judge(SUBJECT, given_facts(DOOR, LOCKED)).rests_on == ("symbols", "types")

    @pytest.mark.parametrize(("profile", "required"), [("default", True), ("night", True), ("day", False)])
    def test_the_profile_decides_whether_it_is_required(self, profile: str, *, required: bool) -> None:
        assert judge(SUBJECT, given_facts(DOOR, LOCKED), profile=profile).required is required
        assert unjudged(SUBJECT, "failed", profile=profile).required is required

    def test_the_default_profile_is_default(self) -> None:
        assert judge(SUBJECT, {}).required
        assert unjudged(SUBJECT, "failed").required

    def test_gaps_are_sorted_and_told_once(self) -> None:
        later = Gap("key", "not in the image")
        door, lock = Door(handles=("left",), gaps=(later, GAP)), Lock(gaps=(GAP,))
        assert judge(SUBJECT, given_facts(door, lock)).gaps == (GAP, later)

    def test_violations_and_observations_are_sorted_by_address_object_and_message(self) -> None:
        order = [
            violation("b", name="a", address=1),
            violation("a", name="b", address=1),
            violation("b", name="b", address=1),
            violation("a", name="a", address=2),
        ]
        finding = judge(saying(*reversed(order)), {Door: DOOR})
        assert list(finding.violations) == order
        seen = [Observation(message=v.message, object=v.object, address=v.address) for v in order]
        assert list(judge(saying(*reversed(seen)), {Door: DOOR}).observations) == seen

    def test_what_has_no_address_stands_first(self) -> None:
        nowhere, somewhere = violation("z"), violation("a", address=1)
        assert judge(saying(somewhere, nowhere), {Door: DOOR}).violations == (nowhere, somewhere)

    def test_a_check_that_could_not_be_carried_out_is_unknown(self) -> None:
        finding = unjudged(SUBJECT, "the check failed: ZeroDivisionError")
        assert finding.verdict is Verdict.UNKNOWN
        assert finding.why == "the check failed: ZeroDivisionError"
        assert (finding.rests_on, finding.gaps, finding.violations) == ((), (), ())


OUTCOMES = st.sampled_from(["whole", "gappy", "unknown", "missing", "absent"])
LOSSES = OUTCOMES.filter("absent".__ne__)
LOSS = {"whole": 0, "gappy": 1, "unknown": 2, "missing": 2}


def in_state(fact: Fact, gappy: Fact, state: str) -> dict[type[Fact], FactOutcome]:
    outcomes: dict[str, FactOutcome] = {
        "whole": fact,
        "gappy": gappy,
        "unknown": Unknown("dark"),
        "absent": Absent("none"),
    }
    return {} if state == "missing" else {type(fact): outcomes[state]}


def facts_of(door: str, lock: str, *, is_open: bool) -> dict[type[Fact], FactOutcome]:
    locks = (Lock(open=is_open), Lock(open=is_open, gaps=(GAP,)))
    return in_state(DOOR, GAPPY_DOOR, door) | in_state(*locks, lock)


@given(OUTCOMES, OUTCOMES, st.booleans())
def test_only_whole_facts_and_silence_hold(door: str, lock: str, is_open: bool) -> None:  # noqa: FBT001 - Hypothesis passes by position
    finding = judge(SUBJECT, facts_of(door, lock, is_open=is_open))
    assert (finding.verdict is Verdict.HOLDS) == (door == lock == "whole" and not is_open)
    assert (finding.verdict is Verdict.VIOLATED) == bool(finding.violations)


@given(
    OUTCOMES.filter("absent".__ne__), OUTCOMES.filter("absent".__ne__), OUTCOMES.filter("absent".__ne__), st.booleans()
)
def test_losing_evidence_never_makes_a_verdict_hold(before: str, after: str, lock: str, is_open: bool) -> None:  # noqa: FBT001 - Hypothesis passes by position
    less, more = sorted((before, after), key=LOSS.__getitem__, reverse=True)
    seen = judge(SUBJECT, facts_of(more, lock, is_open=is_open)).verdict
    lost = judge(SUBJECT, facts_of(less, lock, is_open=is_open)).verdict
    assert lost is not Verdict.HOLDS or seen is Verdict.HOLDS


@given(st.permutations([violation("a", address=2), violation("b", address=1), violation("c")]))
def test_the_order_in_which_a_check_speaks_does_not_matter(said: list[Violation]) -> None:
    finding: Finding = judge(saying(*said), {Door: DOOR})
    assert [v.message for v in finding.violations] == ["c", "b", "a"]


class TestTag:
    def test_a_tagged_function_has_its_id_and_stays_itself(self) -> None:
        assert check_id_of(door_is_locked) == "DOR-001"
        assert list(door_is_locked(DOOR, LOCKED)) == []
        assert SUBJECT.name == "door_is_locked"

    @pytest.mark.parametrize("candidate", [None, 5, "DOR-001", len, Door, judge])
    def test_what_is_not_tagged_is_no_check(self, candidate: object) -> None:
        assert check_id_of(candidate) is None

    def test_an_object_that_answers_to_any_name_is_no_check(self) -> None:
        class Anything:
            def __getattr__(self, name: str) -> object:
                return self

        assert check_id_of(Anything()) is None


class TestNeeds:
    def test_they_are_the_annotated_facts_in_order(self) -> None:
        assert needs_of(door_is_locked) == (Door, Lock)

    def test_annotations_may_be_text(self) -> None:
        def late(door: "Door") -> "Iterator[Violation]":
            del door
            yield from ()

        assert needs_of(late) == (Door,)

    def test_a_parameter_without_annotation_is_our_mistake(self) -> None:
        def bare(door) -> Iterator[Violation]:  # type: ignore[no-untyped-def]  # noqa: ANN001 - the mistake under test
            del door
            yield from ()

        with pytest.raises(ProgramError, match="check bare: parameter door is not annotated with a fact"):
            needs_of(bare)

    @pytest.mark.parametrize("hint", [int, "Door | None", Door | None, tuple[Door], Verdict, Gap])
    def test_an_annotation_that_is_no_fact_is_our_mistake(self, hint: object) -> None:
        def odd(door: object) -> Iterator[Violation]:
            del door
            yield from ()

        odd.__annotations__["door"] = hint
        with pytest.raises(ProgramError, match="parameter door is not annotated with a fact"):
            needs_of(odd)

    def test_a_check_that_reads_nothing_is_our_mistake(self) -> None:
        def empty() -> Iterator[Violation]:
            yield from ()

        with pytest.raises(ProgramError, match="check empty reads no fact"):
            needs_of(empty)


class TestMetadata:
    def test_it_is_read_strictly(self) -> None:
        fields = msgspec.to_builtins(METADATA)
        assert msgspec.convert(fields, Metadata) == METADATA
        with pytest.raises(msgspec.ValidationError, match="unknown field `sevrity`"):
            msgspec.convert({**fields, "sevrity": "low"}, Metadata)
        with pytest.raises(msgspec.ValidationError, match="missing required field `cannot_see`"):
            msgspec.convert({name: value for name, value in fields.items() if name != "cannot_see"}, Metadata)
        with pytest.raises(msgspec.ValidationError, match="Invalid enum value"):
            msgspec.convert({**fields, "severity": "awful"}, Metadata)

    def test_a_check_is_required_by_default(self) -> None:
        given_ = {n: v for n, v in msgspec.to_builtins(METADATA).items() if n not in {"profiles", "confidence"}}
        read = msgspec.convert(given_, Metadata)
        assert read.profiles == ("default",)
        assert read.confidence is Confidence.HIGH

    def test_an_example_is_read_strictly(self) -> None:
        read = msgspec.convert({"name": "open", "verdict": "violated"}, Example)
        assert read == Example(name="open", verdict=Verdict.VIOLATED, says="", facts={})
        with pytest.raises(msgspec.ValidationError, match="unknown field"):
            msgspec.convert({"name": "open", "verdict": "violated", "fact": {}}, Example)
