import pytest

from hypervigil.core.errors import EvidenceError, MissingDescription, MissingMemory
from hypervigil.core.facts import Gap, Observed
from hypervigil.linux.views import View, take_view


def test_a_view_has_what_its_walk_gave_and_its_gaps() -> None:
    gaps = (Gap("list", "it ends"),)
    found = take_view("list", lambda: Observed((3, 1, 3), gaps), complete=True)
    assert found == View(name="list", complete=True, seen=frozenset({1, 3}), gaps=gaps)


def test_an_empty_view_was_walked_all_the_same() -> None:
    assert take_view("list", lambda: Observed(()), complete=False).seen == frozenset()


@pytest.mark.parametrize("fault", [MissingDescription("no symbol"), MissingMemory(1, 2), EvidenceError("why")])
def test_a_view_that_cannot_be_walked_is_no_empty_one(fault: EvidenceError) -> None:
    def walk() -> Observed[int]:
        raise fault

    found = take_view("list", walk, complete=True)
    assert found == View(name="list", complete=True, seen=None, gaps=(Gap("list", str(fault)),))


def test_a_mistake_of_ours_is_no_gap() -> None:
    def walk() -> Observed[int]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        take_view("list", walk, complete=True)
