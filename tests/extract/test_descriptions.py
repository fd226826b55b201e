import pytest

from hypervigil.core.errors import MissingDescription
from hypervigil.core.facts import Gap
from hypervigil.core.units import PAGE_SIZE
from hypervigil.decode.kallsyms import Contradiction
from hypervigil.extract.descriptions import self_description, symbol_table
from hypervigil.facts.kernel import Statement
from tests.extract.judged import finding, judged, subject
from tests.extract.tamperings import export_elsewhere
from tests.linux.host_builder import host
from tests.linux.kernel_builder import RELEASE, KernelImage


def statements(image: KernelImage) -> dict[str, Statement]:
    found = self_description(subject(image))
    assert [s.subject for s in found.statements] == sorted(s.subject for s in found.statements)
    return {s.subject: s for s in found.statements}


def test_claims_are_grouped_by_what_they_are_about() -> None:
    image = host()
    found = statements(image)
    assert {(c.source, c.value) for c in found["release"].claims} == {
        ("VMCOREINFO", RELEASE),
        ("linux_banner", RELEASE),
        ("init_uts_ns", RELEASE),
    }
    assert {c.source for c in found["phys_base"].claims} == {"VMCOREINFO", "the variable", "page tables"}
    assert all(len({c.value for c in s.claims}) == 1 for s in found.values())


def test_every_claim_can_be_reopened() -> None:
    image = host()
    for statement in statements(image).values():
        for claim in statement.claims:
            assert claim.span
            assert all(0 <= span.start < span.end <= len(image.data) for span in claim.span)


def test_a_claim_that_follows_from_the_page_tables_cites_the_top_one() -> None:
    image = host()
    (claim,) = [c for c in statements(image)["phys_base"].claims if c.source == "page tables"]
    assert [(s.start, s.end) for s in claim.span] == [(image.root, image.root + PAGE_SIZE)]


def test_a_source_that_cannot_be_read_is_a_gap() -> None:
    image = host()
    image.symbols.pop("linux_banner")
    image.put_tables()
    found = self_description(subject(image))
    assert found.gaps == (Gap("linux_banner", "symbol linux_banner was not found in kallsyms in the image"),)
    assert finding(judged(image), "KRN-001").verdict == "incomplete"


def test_a_sound_table_has_no_fault() -> None:
    image = host()
    found = symbol_table(subject(image))
    assert (found.count, found.exports, found.faults, found.gaps) == (len(image.symbols), 1, (), ())


def test_an_export_that_leads_elsewhere_is_cited_by_its_entry() -> None:
    image = host()
    export_elsewhere(image)
    (fault,) = symbol_table(subject(image)).faults
    at = image.symbols["__start___ksymtab"][0]
    assert fault.source == "export exported_one"
    assert [(s.start, s.end) for s in fault.span] == [(image.physical(at), image.physical(at) + 12)]


def test_an_export_that_kallsyms_lacks_is_a_fault() -> None:
    image = host()
    image.symbols.pop("exported_one")
    image.put_tables()
    (fault,) = symbol_table(subject(image)).faults
    assert "is not in kallsyms" in fault.value


def test_without_export_tables_nothing_is_known() -> None:
    image = host()
    image.symbols.pop("__start___ksymtab")
    image.put_tables()
    with pytest.raises(MissingDescription):
        symbol_table(subject(image))


def test_contradictions_of_the_table_itself_are_faults() -> None:
    image = host()
    opened = subject(image)
    table = opened.system.kernel.table
    assert table is not None
    said = (Contradiction("one", 8), Contradiction("gone", 16, lost=True), Contradiction("two", 24))
    opened.system.kernel.table = type(table)(
        **{name: getattr(table, name) for name in table.__struct_fields__} | {"contradictions": said}
    )
    found = symbol_table(opened)
    assert [(f.source, f.value) for f in found.faults] == [("kallsyms", "one"), ("kallsyms", "two")]
    assert all(f.span and f.address for f in found.faults)
    assert Gap("kallsyms", "gone") in found.gaps


def test_an_export_table_that_is_lost_is_a_gap() -> None:
    image = host()
    start = image.symbols["__start___ksymtab"][0]
    image.name("__stop___ksymtab", start + 12 * (1 << 18), "r")
    image.put_tables()
    assert symbol_table(subject(image)).gaps == (Gap("__ksymtab", f"{1 << 18} exported symbols"),)
