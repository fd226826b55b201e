import struct
from itertools import pairwise

import pytest

from hypervigil.core.errors import MissingDescription
from hypervigil.core.facts import Gap
from hypervigil.core.units import PAGE_SIZE
from hypervigil.extract import executable as module
from hypervigil.extract.executable import _cut, _Run, executable_memory, executable_slack
from hypervigil.facts.kernel import ExecutableMemory, ExecutableRegion
from hypervigil.linux.executable import Claim
from hypervigil.memory import pagetable
from tests.extract.judged import finding, judged, subject
from tests.extract.tamperings import STUB, page_of_nobody, residue, stub
from tests.linux.host_builder import JIT, host
from tests.linux.kernel_builder import HEAP, TEXT, VMALLOC, KernelImage
from tests.linux.module_builder import FIRST
from tests.memory.page_tables import NO_EXECUTE, PRESENT, USER, WRITABLE

FORGED = 0xFFFF_A000_0000_0000


def memory(image: KernelImage) -> ExecutableMemory:
    return executable_memory(subject(image))


def at(image: KernelImage, address: int) -> ExecutableRegion:
    (found,) = [r for r in memory(image).regions if r.start <= address < r.end]
    return found


def test_every_executable_range_has_one_owner_and_a_place() -> None:
    found = memory(host())
    assert found.gaps == ()
    assert all(low.end <= high.start for low, high in pairwise(found.regions))
    assert {(r.owner, r.kind) for r in found.regions if "0x" not in r.owner} == {
        ("kernel text", "text"),
        *((f"module {name}", "text") for name in ("kvm", "kvm_amd", "dummy")),
        ("BPF bpf_prog_test", "jit"),
        ("kprobe_insn_slots", "trampoline"),
        ("unused, holds traps only", "unused"),
    }
    assert not any(r.writable or r.user or not r.table_span or not r.span for r in found.regions)


def test_text_is_owned_to_the_end_of_its_last_page() -> None:
    image = host()
    text = at(image, TEXT)
    assert (text.start, text.end) == (TEXT, (image.symbols["_etext"][0] | PAGE_SIZE - 1) + 1)


def test_the_entry_that_is_cited_is_that_of_the_page() -> None:
    image = host()
    page_of_nobody(image)
    (span,) = at(image, STUB).table_span
    assert image.get(span.start) == image.get(image.slot(STUB))
    assert span.end - span.start == 8


def test_rights_are_those_of_the_page() -> None:
    image = host()
    image.put(image.slot(FIRST), image.get(image.slot(FIRST)) | WRITABLE | USER)
    found = at(image, FIRST)
    assert (found.owner, found.writable, found.user) == ("module kvm", True, True)


def test_of_a_page_of_nobody_only_what_is_no_trap_accuses() -> None:
    image = host()
    image.page(STUB, b"\xcc" * 0x100 + b"\x90" * 8 + b"\xcc" * (PAGE_SIZE - 0x108), writable=False, executable=True)
    parts = [(r.start - STUB, r.end - STUB, r.owner) for r in memory(image).regions if STUB <= r.start < STUB + 0x1000]
    unused = "unused, holds traps only"
    assert parts == [(0, 0x100, unused), (0x100, 0x108, ""), (0x108, PAGE_SIZE, unused)]


def test_a_page_of_nobody_that_holds_traps_only_is_unused() -> None:
    image = host()
    image.page(STUB, b"\xcc" * PAGE_SIZE, writable=False, executable=True)
    found = at(image, STUB)
    assert (found.start, found.end, found.kind) == (STUB, STUB + PAGE_SIZE, "unused")


@pytest.mark.parametrize("lost", ["bpf symbol", "slot page", "ftrace ops", "module dummy", "vmap node"])
def test_nobody_is_accused_while_a_possible_owner_was_not_read(lost: str) -> None:
    image = host()
    page_of_nobody(image)
    place = image.physical(image.at[lost])
    found = executable_memory(subject(image, image.lime(place & -PAGE_SIZE)))
    assert all(r.owner for r in found.regions)
    assert found.gaps


def test_a_page_of_nobody_that_is_lost_is_a_gap() -> None:
    image = host()
    frame = image.page(STUB, b"\x90" * 8, writable=False, executable=True)
    found = executable_memory(subject(image, image.lime(frame)))
    assert Gap(f"executable memory at {STUB:#x}, 4096 bytes", "not in the image") in found.gaps
    assert "" not in {r.owner for r in found.regions}


def test_a_table_of_zeros_is_a_gap_where_an_area_is_live() -> None:
    image = host()
    table = image.slot(JIT) & -PAGE_SIZE
    image.data[table : table + PAGE_SIZE] = bytes(PAGE_SIZE)
    start = JIT & -(1 << 21)
    why = "it is all zero, which this format cannot tell from missing"
    assert Gap(f"page table for {start:#x}", why) in memory(image).gaps
    assert executable_memory(subject(image, image.lime())).gaps == ()  # there a zero is a zero


def test_a_table_of_zeros_is_lawful_where_no_area_is_live() -> None:
    image = host()
    image.slot(VMALLOC + (1 << 30))
    assert memory(image).gaps == ()
    image.slot(FIRST + (1 << 25))
    assert memory(image).gaps == ()
    image.slot(FORGED)
    assert [gap.what for gap in memory(image).gaps] == [f"page table for {FORGED:#x}"]


def test_where_vmalloc_begins_must_be_known_to_excuse_a_table() -> None:
    image = host()
    image.slot(VMALLOC + (1 << 30))
    image.symbols.pop("vmalloc_base")
    image.put_tables()
    assert f"page table for {VMALLOC + (1 << 30):#x}" in {gap.what for gap in memory(image).gaps}


@pytest.mark.parametrize(
    ("claims", "cut"),
    [
        ([], [(0, 100, "")]),
        ([(0, 100, "a")], [(0, 100, "a")]),
        ([(-50, 200, "a")], [(0, 100, "a")]),
        ([(10, 20, "a"), (30, 40, "b")], [(0, 10, ""), (10, 20, "a"), (20, 30, ""), (30, 40, "b"), (40, 100, "")]),
        ([(0, 50, "a"), (20, 70, "b")], [(0, 50, "a"), (50, 70, "b"), (70, 100, "")]),
        ([(0, 90, "a"), (20, 40, "b")], [(0, 90, "a"), (90, 100, "")]),
        ([(100, 200, "a"), (-9, 0, "b")], [(0, 100, "")]),
    ],
)
def test_a_run_is_cut_by_claims_and_the_first_counts(
    claims: list[tuple[int, int, str]], cut: list[tuple[int, int, str]]
) -> None:
    given = [Claim(start, end, owner, "text") for start, end, owner in claims]
    found = _cut(_Run(0, 100, writable=False, user=False, table=0), given)
    assert [(start, end, claim.owner if claim else "") for start, end, claim in found] == cut


def forge(image: KernelImage, flags: int = 0) -> None:
    """Map 2 GiB with three tables that stand in for all others; every second page with `flags`."""
    low, middle, high = image.frame(), image.frame(), image.frame()
    frames = [image.frame() for _ in range(4)]
    for index in range(512):
        image.put(low + 8 * index, frames[index % 4] | PRESENT | flags * (index & 1))
        image.put(middle + 8 * index, low | PRESENT | WRITABLE)
        image.put(high + 8 * index, middle | PRESENT | WRITABLE if index < 2 else 0)
    image.put(image.slot(FORGED, 4), high | PRESENT | WRITABLE)


@pytest.mark.parametrize("flags", [0, NO_EXECUTE])
def test_forged_tables_cost_little_and_are_told(monkeypatch: pytest.MonkeyPatch, flags: int) -> None:
    monkeypatch.setattr(pagetable, "_MAX_LEAVES", 1 << 12)
    monkeypatch.setattr(module, "_MOST_RUNS", 300)
    monkeypatch.setattr(module, "_MOST_SEARCHED", 1 << 20)
    monkeypatch.setattr(module, "_MOST_GAPS", 40)
    image = host()
    forge(image, flags)
    found = memory(image)
    assert len(found.regions) < 700
    assert len(found.gaps) < 50
    assert any("forged" in gap.why for gap in found.gaps)
    assert finding(judged(image), "KRN-005").verdict == "incomplete"


def test_more_ranges_than_any_kernel_has_are_cut_off_with_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = memory(host())
    monkeypatch.setattr(module, "_MOST_RUNS", 2)
    found = memory(host())
    assert {r.owner for r in found.regions} < {r.owner for r in whole.regions}
    (gap,) = found.gaps
    assert gap.what == f"executable memory behind {found.regions[-1].end:#x}"
    assert gap.why.startswith("more than 2 ranges")


def test_a_huge_page_of_nobody_is_searched_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_SEARCHED", 1 << 20)
    image = host()
    image.map(FORGED, 0, size=1 << 30, executable=True, writable=False)
    found = memory(image)
    assert any(not r.owner for r in found.regions)
    (rest,) = [gap for gap in found.gaps if "too much of it" in gap.why]
    assert rest.what.startswith("executable memory at 0xffffa000000")
    assert finding(judged(image), "KRN-005").verdict == "violated"


def test_slack_is_looked_at_behind_the_kernel_and_every_module() -> None:
    image = host()
    clean = executable_slack(subject(image))
    assert (clean.residues, clean.gaps) == ((), ())
    start = residue(image)
    planted = stub(image)
    found = {r.start: r for r in executable_slack(subject(image)).residues}
    assert {address: r.owner for address, r in found.items()} == {start: "kvm", planted: "kernel"}
    (span,) = found[start].span
    assert image.data[span.start : span.end] == image.peek(start, found[start].end - start)


def test_a_module_without_symbols_is_a_gap_of_its_slack() -> None:
    image = host()
    table = image.word(image.at["module dummy"] + image.types.offset("module", "kallsyms"))
    image.member("mod_kallsyms", table, "num_symtab", 0)
    found = executable_slack(subject(image))
    assert Gap("slack of module dummy", "the symbols of module dummy cannot be read") in found.gaps


def test_a_module_without_a_symbol_in_its_text_is_a_gap_of_its_slack() -> None:
    image = host()
    rows = image.at["symtab of dummy"]
    image.poke(rows + 2 * 24 + 8, HEAP.to_bytes(8, "little"))
    found = executable_slack(subject(image))
    assert Gap("slack of module dummy", "module dummy has no symbol in its text") in found.gaps


def test_without_the_end_of_text_slack_is_unknown() -> None:
    image = host()
    image.symbols.pop("_etext")
    image.put_tables()
    with pytest.raises(MissingDescription):
        executable_slack(subject(image))


def test_a_lost_page_of_text_is_a_gap_of_its_slack() -> None:
    image = host()
    found = executable_slack(subject(image, image.lime(image.physical(TEXT))))
    assert found.residues == ()
    assert [gap.why for gap in found.gaps] == ["not in the image"]


def far_end(image: KernelImage) -> int:
    """Say that text ends two pages behind its last function; return where that function begins."""
    last = max(a for a, letter in image.symbols.values() if letter == "t" and TEXT <= a < image.symbols["_etext"][0])
    image.name("_etext", (last & -PAGE_SIZE) + 3 * PAGE_SIZE - 0x40, "T")
    image.put_tables()
    return last


def test_where_text_ends_far_behind_its_last_function_that_one_s_padding_begins_the_slack() -> None:
    image = host()
    last = far_end(image)
    assert executable_slack(subject(image)).residues == ()
    image.poke_image(last + 0x80, b"\x48\x31\xc0\xc3")
    (found,) = executable_slack(subject(image)).residues
    assert (found.owner, found.start, found.end) == ("kernel", last + 0x80, last + 0x84)


BEHIND = FIRST + 0xE00
REPLACEMENT = b"\x48\x0f\xc7\xf0\x90"


def sections(image: KernelImage, **places: int) -> int:
    """Let kvm say where its sections are; return the list."""
    address = image.object("module_sect_attrs", nsections=len(places))
    for index, (name, place) in enumerate(places.items()):
        text = image.heap(f".{name}\0".encode())
        image.member("module_sect_attrs", address, f"attrs[{index}].battr.attr.name", text)
        image.member("module_sect_attrs", address, f"attrs[{index}].address", place)
    image.member("module", image.at["module kvm"], "sect_attrs", address)
    return address


def replacement(image: KernelImage) -> int:
    """Put the replacement of an alternative behind kvm's last function, as its table says; return its list."""
    table = FIRST + 0x8000 + 0x3F00
    image.poke(BEHIND, REPLACEMENT)
    image.poke(table, struct.pack("<iiHBB", FIRST - table, BEHIND - table - 4, 0, 5, len(REPLACEMENT)))
    return sections(image, text=FIRST, altinstr_replacement=BEHIND, altinstructions=table, rodata=table + 12)


def test_the_replacement_of_an_alternative_is_no_residue() -> None:
    image = host()
    replacement(image)
    assert executable_slack(subject(image)).residues == ()


def test_what_stands_right_behind_or_before_a_replacement_is_residue() -> None:
    image = host()
    replacement(image)
    end = BEHIND + len(REPLACEMENT)
    image.poke(end, b"\x48\x31\xc0\xc3")
    image.poke(BEHIND - 2, b"\x31\xc0")
    found = executable_slack(subject(image))
    assert [(r.owner, r.start, r.end) for r in found.residues] == [
        ("kvm", BEHIND - 2, BEHIND),
        ("kvm", end, end + 4),
    ]


def test_a_live_module_without_a_list_of_sections_explains_nothing() -> None:
    image = host()
    replacement(image)
    image.member("module", image.at["module kvm"], "sect_attrs", 0)
    assert [r.start for r in executable_slack(subject(image)).residues] == [BEHIND]


def test_a_module_that_is_being_unloaded_is_not_accused() -> None:
    image = host()
    replacement(image)
    image.member("module", image.at["module kvm"], "sect_attrs", 0)
    image.member("module", image.at["module kvm"], "state", 2)
    found = executable_slack(subject(image))
    assert found.residues == ()
    assert [gap.what for gap in found.gaps] == ["slack of module kvm"]


@pytest.mark.parametrize("lost", ["list", "table"])
def test_a_module_whose_code_without_symbols_cannot_be_told_is_not_accused(lost: str) -> None:
    image = host()
    attributes = replacement(image)
    place = {"list": attributes, "table": FIRST + 0x8000 + 0x3F00}[lost]
    found = executable_slack(subject(image, image.lime(image.physical(place) & -PAGE_SIZE)))
    assert found.residues == ()
    assert [gap.what for gap in found.gaps if "slack" in gap.what] == ["slack of module kvm"]


def test_a_last_function_without_a_size_reaches_to_its_padding() -> None:
    image = host()
    rows = image.at["symtab of dummy"]
    start = image.at["dummy_init"]
    image.poke(start, b"\x90" * 0x20 + b"\x31\xc0\xc3".ljust(0x40, b"\xcc"))
    image.poke(rows + 2 * 24 + 16, bytes(8))
    assert [r.start for r in executable_slack(subject(image)).residues] == [start + 0x20]
    image.poke(start, b"\x31\xc0" * 0x10)
    assert executable_slack(subject(image)).residues == ()
    image.poke(start + 0x80, b"\x31\xc0")
    assert [r.start for r in executable_slack(subject(image)).residues] == [start + 0x80]


def test_what_a_thread_is_just_freeing_is_an_observation(monkeypatch: pytest.MonkeyPatch) -> None:
    image = host()
    page_of_nobody(image)
    owner = "module gone, which process 7 (rmmod) is unloading"
    claims: list[Claim] = [Claim(STUB, STUB + PAGE_SIZE, owner, "freed")]
    monkeypatch.setattr(module, "memory_being_freed", lambda *_: iter(claims))
    assert at(image, STUB).owner == owner
    found = finding(judged(image), "KRN-005")
    assert (found.verdict, [one.object for one in found.observations]) == ("holds", [owner])
    claims.clear()
    assert at(image, STUB).owner == ""
    assert finding(judged(image), "KRN-005").verdict == "violated"
