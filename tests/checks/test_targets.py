import pytest

from hypervigil.checks.targets import each_misdirected, misdirected, misdirection
from hypervigil.core.evidence import Span
from hypervigil.facts.pointers import Section, Slot, Target

TEXT, RODATA = (Section.TEXT,), (Section.TEXT, Section.RODATA)
OWNERS = ("kvm", "kernel")
SPAN = (Span("memory", 0x10, 0x18),)


def slot(wanted: tuple[str, ...] = (), **target: object) -> Slot:
    known: dict[str, object] = {"address": 0x1000, "symbol": "f", "owner": "kvm", "section": Section.TEXT}
    return Slot(name="table[1]", address=0x50, target=Target(**known | target), span=SPAN, wanted=wanted)  # type: ignore[arg-type] # as the cases say


@pytest.mark.parametrize(
    "given",
    [
        slot(),
        slot(wanted=("f", "g")),
        slot(wanted=("g",), aliases=("h", "g")),
        slot(owner="kernel"),
        slot(placed=False, owner="", symbol=""),
        slot(placed=False, owner="evil"),
    ],
)
def test_a_slot_that_leads_where_it_should_or_cannot_be_placed_is_not_accused(given: Slot) -> None:
    assert misdirection(given, OWNERS, TEXT) == ""
    assert list(each_misdirected([given], OWNERS)) == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (slot(owner="", symbol=""), "leads to 0x1000, which belongs to nobody"),
        (slot(owner="evil"), "leads to f [evil], owned by evil; only kernel, kvm may be there"),
        (slot(section=Section.DATA), "leads to f [kvm] in data, not in text"),
        (slot(section=Section.NOWHERE), "leads to f [kvm] in no section, not in text"),
        (slot(symbol=""), "leads to 0x1000 in kvm, where no function is: it is not the start of anything"),
        (slot(offset=4), "leads to f+0x4 [kvm], which is not the start of anything"),
        (slot(wanted=("g", "h")), "leads to f [kvm] instead of g or h"),
        (slot(wanted=("g",), aliases=("h",)), "leads to f [kvm] instead of g"),
    ],
)
def test_what_is_wrong_is_said_in_words(given: Slot, why: str) -> None:
    assert misdirection(given, OWNERS, TEXT) == why
    (violation,) = each_misdirected([given], OWNERS, prefix="here: ")
    assert violation.message == f"here: table[1] {why}"


def test_sections_may_be_several() -> None:
    assert misdirection(slot(section=Section.RODATA), OWNERS, RODATA) == ""
    assert "not in text or rodata" in misdirection(slot(section=Section.INIT), OWNERS, RODATA)
    assert list(each_misdirected([slot(section=Section.RODATA)], OWNERS, sections=RODATA)) == []


def test_an_empty_slot_is_lawful() -> None:
    empty = slot(address=0, owner="", symbol="")
    assert list(each_misdirected([empty], ())) == []


def test_every_slot_is_judged_in_order() -> None:
    found = list(each_misdirected([slot(offset=1), slot(), slot(offset=2)], OWNERS))
    assert ["+0x1" in found[0].message, "+0x2" in found[1].message] == [True, True]


def test_a_violation_cites_the_slot_and_shows_where_it_leads() -> None:
    found = misdirected(slot(wanted=("g",), offset=4), "m")
    assert (found.object, found.address, found.spans) == ("table[1]", 0x50, SPAN)
    assert (found.found, found.expected) == ("f+0x4 [kvm]", "g")
    assert [(c.address, c.size, c.code) for c in found.code] == [(0x50, 8, False), (0x1000, 48, True)]


@pytest.mark.parametrize(
    ("section", "shown"),
    [(Section.TEXT, 2), (Section.NOWHERE, 2), (Section.DATA, 1), (Section.RODATA, 1), (Section.INIT, 1)],
)
def test_data_is_not_shown_as_code(section: Section, shown: int) -> None:
    assert len(misdirected(slot(section=section), "m").code) == shown


def test_where_nothing_is_known_the_rule_is_what_was_expected() -> None:
    assert misdirected(slot(), "m").expected == "the exact start of a function of its owner"
