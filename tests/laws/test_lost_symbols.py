"""Packages beside a symbol table of which a page is lost: nobody is accused for it, and no change is cleared by it."""

import pytest

from hypervigil.app.judging import judge_memory
from hypervigil.core.finding import Verdict
from hypervigil.core.units import PAGE_SIZE
from hypervigil.linux.reference import open_reference
from tests.extract.judged import SETTINGS, evidence
from tests.extract.shipment import CHANGED, GIVEN, KERNEL, LAWFUL, host
from tests.linux.kernel_builder import PHYSICAL, RODATA, RODATA_SIZE, TEXT, KernelImage

REFERENCES = tuple(open_reference(name, data) for name, data in GIVEN)
FILLERS = 4000


def spread() -> KernelImage:
    """A host that runs what was shipped, with so many symbols that each of their tables has several pages."""
    image = host()
    for index in range(FILLERS):
        image.name(f"filler_{index}", RODATA + 0x3000 + index % 0x1000, "r")
    assert image.put_tables() <= RODATA + RODATA_SIZE
    return image


HOST = spread()
FIRST = min(HOST.at[name] for name in HOST.at if name.startswith("kallsyms_")) & -PAGE_SIZE
LAST = max(HOST.at[name] for name in HOST.at if name.startswith("kallsyms_")) + 3 * FILLERS
PAGES = range(FIRST, LAST, PAGE_SIZE)


def verdicts(image: KernelImage, page: int | None) -> dict[str, Verdict]:
    """What both checks say of a host, without a page."""
    memory = image.raw() if page is None else image.lime(page - TEXT + PHYSICAL)
    found = judge_memory(memory, evidence, SETTINGS, references=REFERENCES)
    assert found.faults == ()
    return {f.check: f.verdict for f in found.report.findings if f.check in {"KRN-010", "KRN-011"}}


def lawful() -> KernelImage:
    image = HOST.copy()
    for address, value in LAWFUL.values():
        image.poke(address, value)
    return image


def test_a_whole_table_shows_that_both_hold() -> None:
    assert verdicts(lawful(), None) == {"KRN-010": Verdict.HOLDS, "KRN-011": Verdict.HOLDS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page:#x}")
def test_a_lost_page_accuses_nobody(page: int) -> None:
    assert Verdict.VIOLATED not in verdicts(lawful(), page).values()


@pytest.mark.parametrize("what", CHANGED)
def test_a_change_of_text_is_cleared_by_no_lost_page(what: str) -> None:
    address, value, *_ = CHANGED[what]
    image = HOST.copy()
    image.poke(address, value)
    assert verdicts(image, None)["KRN-010"] is Verdict.VIOLATED
    found = {verdicts(image, page)["KRN-010"] for page in PAGES}
    assert found == {Verdict.INCOMPLETE, Verdict.UNKNOWN}


def test_a_change_of_constants_is_cleared_by_no_lost_page() -> None:
    image = HOST.copy()
    image.poke(KERNEL.CONSTANTS + 1, b"\xfe")
    for page in PAGES:
        assert verdicts(image, page)["KRN-011"] is not Verdict.HOLDS, hex(page)
