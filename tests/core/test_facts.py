import msgspec
import pytest

from hypervigil.core.errors import EvidenceError
from hypervigil.core.facts import Absent, Gap, ImpossibleFact, Observed, Unknown, require
from tests.core.samples import Door, Lock


def test_a_gap_reads_as_a_sentence() -> None:
    assert str(Gap("page table at physical 0x1000", "not in the image")) == (
        "page table at physical 0x1000: not in the image"
    )


def test_gaps_are_ordered_by_what_and_why() -> None:
    assert Gap("a", "b") < Gap("a", "c") < Gap("b", "a")


@pytest.mark.parametrize("condition", [False, 0, "", (), None])
def test_an_impossible_fact_is_the_evidences_fault(condition: object) -> None:
    with pytest.raises(ImpossibleFact, match="a door without a handle") as raised:
        require(condition, "a door without a handle")
    assert isinstance(raised.value, EvidenceError)


@pytest.mark.parametrize("condition", [True, 1, "x", (0,)])
def test_a_possible_fact_passes(condition: object) -> None:
    require(condition, "never said")


def test_a_fact_refuses_what_no_sound_system_gives() -> None:
    with pytest.raises(ImpossibleFact, match="a door without a handle"):
        Door(handles=())


def test_a_fact_is_whole_unless_it_says_otherwise() -> None:
    assert Lock() == Lock(gaps=(), rests_on=())


def test_facts_are_read_strictly_and_cannot_be_changed() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `colour`"):
        msgspec.convert({"handles": ["left"], "colour": "red"}, Door)
    with pytest.raises(AttributeError, match="immutable"):
        setattr(Lock(), "open", True)  # noqa: B010 - mypy would refuse the plain assignment


def test_a_fact_is_named_not_positioned() -> None:
    with pytest.raises(TypeError):
        Lock(True)  # type: ignore[call-arg, arg-type]  # noqa: FBT003 - the mistake under test


def test_what_stands_for_a_fact_is_not_mistaken_for_another() -> None:
    assert len({Unknown("x"), Absent("x"), Unknown("y")}) == 3
    assert Observed((1,)) == Observed((1,), ())
    assert Observed((), (Gap("a", "b"),)) != Observed(())
