import pytest

from hypervigil.core.errors import MissingDescription
from hypervigil.core.facts import Gap
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.extract.protection import kernel_half, memory_protection
from hypervigil.memory.symbols import Symbols
from tests.extract.judged import subject
from tests.extract.tamperings import shared_table
from tests.linux.host_builder import host
from tests.linux.kernel_builder import RODATA, RODATA_SIZE, TEXT, KernelImage
from tests.linux.module_builder import FIRST
from tests.memory.page_tables import FRAME, NO_EXECUTE, PRESENT, USER, WRITABLE

ACCESSED, DIRTY = 1 << 5, 1 << 6
ALL_ZERO = "it is all zero, which this format cannot tell from missing"


def writable(image: KernelImage) -> dict[str, list[int]]:
    found = memory_protection(subject(image))
    assert found.gaps == ()
    return {r.name: [address for address, _ in r.writable] for r in found.ranges if r.writable}


def set_bits(image: KernelImage, address: int, bits: int) -> int:
    """Set bits of the entry that maps an address; return the entry's place."""
    slot = image.slot(address)
    image.put(slot, image.get(slot) | bits)
    return slot


def test_every_page_of_text_and_read_only_data_is_looked_up() -> None:
    found = memory_protection(subject(host()))
    assert found.gaps == ()
    counted = {(r.name, (r.end - r.start) // PAGE_SIZE == r.pages) for r in found.ranges}
    names = {f"{owner} {section}" for owner in ("kernel", "kvm", "kvm_amd", "dummy") for section in ("text", "rodata")}
    assert counted == {(name, True) for name in names}
    assert sum(r.pages for r in found.ranges) == 1 + RODATA_SIZE // PAGE_SIZE + 3 * 5


def test_a_writable_page_is_cited_by_its_entry() -> None:
    image = host()
    place = set_bits(image, TEXT, WRITABLE)
    (found,) = [r for r in memory_protection(subject(image)).ranges if r.writable]
    assert [(at, [(s.start, s.end) for s in spans]) for at, spans in found.writable] == [(TEXT, [(place, place + 8)])]


def test_each_range_tells_of_its_own_pages_only() -> None:
    image = host()
    last = RODATA + RODATA_SIZE - PAGE_SIZE
    for address in (RODATA, last, FIRST, FIRST + 0x8000):
        set_bits(image, address, WRITABLE)
    assert writable(image) == {"kernel rodata": [RODATA, last], "kvm text": [FIRST], "kvm rodata": [FIRST + 0x8000]}


def test_rights_of_a_table_above_count() -> None:
    image = host()
    set_bits(image, TEXT, WRITABLE)
    above = image.slot(TEXT, 2)
    image.put(above, image.get(above) & ~WRITABLE)
    assert writable(image) == {}


def test_a_page_that_is_not_mapped_is_a_gap() -> None:
    image = host()
    for address in (FIRST, FIRST + 0x9000, FIRST + 0xA000):
        image.put(image.slot(address), 0)
    found = memory_protection(subject(image, image.lime()))
    assert found.gaps == (
        Gap("1 pages of kvm text", "the page tables do not map them"),
        Gap("2 pages of kvm rodata", "the page tables do not map them"),
    )


@pytest.mark.parametrize("symbol", ["_stext", "_etext", "__start_rodata", "__end_rodata"])
def test_without_the_bounds_nothing_is_known(symbol: str) -> None:
    image = host()
    image.symbols.pop(symbol)
    image.put_tables()
    with pytest.raises(MissingDescription, match=symbol):
        memory_protection(subject(image))


def test_a_module_that_is_not_live_may_still_be_writable() -> None:
    image = host()
    set_bits(image, FIRST, WRITABLE)
    image.member("module", image.at["module kvm"], "state", 1)
    assert writable(image) == {}


def half(image: KernelImage) -> int:
    """Physical address of the private top table of a process."""
    return image.physical(image.word(image.at["mm"] + image.types.offset("mm_struct", "pgd")))


def test_every_table_of_a_process_is_compared_once() -> None:
    for levels in (4, 5):
        found = kernel_half(subject(host(levels)))
        assert (found.compared, found.private, found.gaps) == (2, (), ())


@pytest.mark.parametrize(
    ("levels", "index", "start"),
    [(4, 256, 0xFFFF_8000 << 32), (4, 511, 0xFFFF_FF80 << 32), (5, 256, 0xFF00 << 48), (5, 300, 0xFF2C << 48)],
)
def test_an_entry_that_differs_is_told_by_what_it_maps(levels: int, index: int, start: int) -> None:
    image = host(levels)
    place = half(image) + 8 * index
    wanted = image.get(image.root + 8 * index)
    image.put(place, 0x0012_3000 | NO_EXECUTE | PRESENT | WRITABLE | ACCESSED)
    (found,) = kernel_half(subject(image)).private
    assert (found.process, found.start) == ("100 (qemu)", start)
    assert found.entry == 0x0012_3000 | NO_EXECUTE | PRESENT | WRITABLE
    assert found.wanted == wanted & ~(ACCESSED | DIRTY)
    assert [(s.start, s.end) for s in found.span] == [(place, place + 8)]


@pytest.mark.parametrize("bits", [ACCESSED, DIRTY, 1 << 8, 1 << 9])
def test_what_the_processor_notes_is_no_difference(bits: int) -> None:
    image = host()
    place = half(image) + 8 * 511
    image.put(place, image.get(place) ^ bits)
    assert kernel_half(subject(image)).private == ()


@pytest.mark.parametrize("bits", [USER, WRITABLE, NO_EXECUTE, 0x1000])
def test_what_changes_rights_or_place_is_a_difference(bits: int) -> None:
    image = host()
    place = half(image) + 8 * 511
    image.put(place, image.get(place) ^ bits)
    assert len(kernel_half(subject(image)).private) == 1


def test_an_entry_that_was_not_copied_yet_is_lawful() -> None:
    image = host()
    image.put(half(image) + 8 * 511, 0)
    assert kernel_half(subject(image)).private == ()


def test_the_slot_of_local_descriptor_tables_is_private_by_design() -> None:
    image = host()
    image.put(half(image) + 8 * 272, 0x1067)
    shared = bool(image.get(image.root + 8 * 272))
    assert len(kernel_half(subject(image)).private) == shared
    image.put(image.root + 8 * 272, 0x2067)
    assert [p.wanted for p in kernel_half(subject(image)).private] == [0x2007]


def test_an_entry_that_shares_its_table_is_told_by_what_it_maps_and_cited() -> None:
    image = host()
    start = shared_table(image)
    found = kernel_half(subject(image))
    (one,) = found.repeated
    slot = image.slot(FIRST, 2) + 8 * 255
    assert (one.start, one.table) == (start, image.get(slot) & FRAME)
    assert [(span.start, span.end) for span in one.span] == [(slot, slot + 8)]
    assert any("forged" in gap.why for gap in found.gaps)


@pytest.mark.parametrize("levels", [4, 5])
def test_the_shadow_of_kasan_shares_tables_where_a_kernel_has_it(levels: int) -> None:
    image = host(levels)
    shadow = 0xFFFF_F000_0000_0000
    image.map(shadow, 0x1000)
    image.put(image.slot(shadow, 3) + 8, image.get(image.slot(shadow, 3)))
    assert [one.start for one in kernel_half(subject(image)).repeated] == [shadow + (1 << 30)]
    image.name("kasan_early_shadow_page", RODATA + 8, "r")
    image.put_tables()
    assert kernel_half(subject(image)).repeated == ()
    shared_table(image)
    assert len(kernel_half(subject(image)).repeated) == 1


def test_whether_tables_may_be_shared_is_open_where_symbols_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_symbols: Symbols, *names: str) -> VirtAddr | None:
        raise MissingDescription(f"symbol {names[0]} may be lost")

    image = host()
    shadow = 0xFFFF_F000_0000_0000
    image.map(shadow, 0x1000)
    image.put(image.slot(shadow, 3) + 8, image.get(image.slot(shadow, 3)))
    shared_table(image)
    found = subject(image)
    assert found.census.tasks.gaps == ()
    monkeypatch.setattr(Symbols, "find", lost)
    half = kernel_half(found)
    assert [one.start for one in half.repeated] == [(FIRST & -(1 << 21)) + 255 * (1 << 21)]
    assert Gap("page tables that are shared", "symbol kasan_early_shadow_pte may be lost") in half.gaps


def test_the_users_half_is_not_compared() -> None:
    image = host()
    image.put(half(image) + 8 * 255, 0x1067)
    assert kernel_half(subject(image)).private == ()


def test_a_table_that_cannot_be_read_is_a_gap_by_its_process() -> None:
    image = host()
    frame = half(image)
    found = kernel_half(subject(image, image.lime(frame)))
    assert (found.compared, [gap.what for gap in found.gaps]) == (1, ["page table of 100 (qemu)"])
    image.data[frame : frame + PAGE_SIZE] = bytes(PAGE_SIZE)
    found = kernel_half(subject(image))
    assert (found.compared, found.gaps) == (1, (Gap("page table of 100 (qemu)", ALL_ZERO),))
    assert kernel_half(subject(image, image.lime())).gaps == ()
