import pkgutil

import pytest

import hypervigil.extract
from hypervigil.checks import load_checks
from hypervigil.core.errors import DecodeError, EvidenceError, MissingDescription, ProgramError
from hypervigil.core.facts import Absent, Fact, FactOutcome, Gap, Unknown
from hypervigil.extract import loading
from hypervigil.extract.loading import Subject, all_unknown, extract, extracts, load_extractors
from hypervigil.facts.kernel import KernelHalf, SelfDescription, SystemCalls
from hypervigil.facts.pointers import Slot, Target
from tests.extract.judged import subject
from tests.linux.host_builder import host

SUBJECT = subject(host())


def slot(address: int, *, placed: bool) -> Slot:
    return Slot(name="s", address=1, target=Target(address=address, placed=placed), span=())


def test_every_fact_that_a_check_reads_has_an_extractor() -> None:
    assert {need for check in load_checks() for need in check.needs} <= set(load_extractors())


def test_what_judges_the_others_comes_last() -> None:
    kinds = list(load_extractors())
    assert kinds[-1] is SelfDescription
    assert [kind.__name__ for kind in kinds[:-1]] == sorted(kind.__name__ for kind in kinds[:-1])


def test_two_extractors_of_one_fact_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    infos = list(pkgutil.iter_modules(hypervigil.extract.__path__, "hypervigil.extract."))
    monkeypatch.setattr(pkgutil, "iter_modules", lambda *_: [*infos, *infos])
    with pytest.raises(ProgramError, match="two extractors yield"):
        loading.load_extractors.__wrapped__()


@pytest.mark.parametrize(
    "fault", [EvidenceError("why"), MissingDescription("why"), DecodeError("table", "why", 3)], ids=type
)
def test_what_evidence_does_not_show_is_unknown_with_its_reason(fault: EvidenceError) -> None:
    def extractor(_: Subject) -> FactOutcome:
        raise fault

    assert extract(extractor, SUBJECT) == Unknown(str(fault))


def test_a_mistake_of_ours_is_left_to_the_caller() -> None:
    def extractor(_: Subject) -> FactOutcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        extract(extractor, SUBJECT)


@pytest.mark.parametrize("outcome", [Unknown("why"), Absent("why")])
def test_what_is_no_fact_is_handed_on(outcome: FactOutcome) -> None:
    assert extract(lambda _: outcome, SUBJECT) is outcome


def test_a_fact_says_what_it_rests_on() -> None:
    fact = KernelHalf(compared=1, private=())
    found = extract(lambda _: fact, SUBJECT)
    assert isinstance(found, Fact)
    assert found.rests_on == SUBJECT.system.rests_on
    assert "kallsyms in the image" in found.rests_on
    own = KernelHalf(compared=1, private=(), rests_on=("the package",))
    kept = extract(lambda _: own, SUBJECT)
    assert isinstance(kept, Fact)
    assert kept.rests_on == ("the package",)


def test_a_pointer_that_could_not_be_placed_is_a_gap_once() -> None:
    why = "not every module and its symbols could be read"
    slots = (slot(7, placed=False), slot(5, placed=False), slot(7, placed=False), slot(9, placed=True))
    found = extract(lambda _: SystemCalls(slots=slots, gaps=(Gap("a", "b"),)), SUBJECT)
    assert isinstance(found, SystemCalls)
    assert found.gaps == (Gap("a", "b"), Gap("owner of 0x5", why), Gap("owner of 0x7", why))


def test_a_subject_that_could_not_be_opened_leaves_everything_unknown() -> None:
    assert dict(all_unknown("why")) == dict.fromkeys(load_extractors(), Unknown("why"))


def test_a_tag_changes_nothing_of_a_function() -> None:
    def extractor(_: Subject) -> FactOutcome:
        return Unknown("why")

    assert extracts(KernelHalf)(extractor) is extractor
