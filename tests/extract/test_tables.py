import struct

import pytest

from hypervigil.core.errors import EvidenceError, MissingDescription
from hypervigil.core.facts import Gap
from hypervigil.core.units import PAGE_SIZE
from hypervigil.extract.tables import interrupt_table, system_calls
from hypervigil.facts.pointers import Section
from tests.extract.judged import subject
from tests.linux.c_types import words
from tests.linux.host_builder import SYSTEM_CALLS, host
from tests.linux.kernel_builder import RODATA


def test_the_table_is_read_to_the_next_symbol() -> None:
    image = host()
    found = system_calls(subject(image))
    at = image.symbols["sys_call_table"][0]
    assert [(s.name, s.address) for s in found.slots] == [
        (f"sys_call_table[{index}]", at + 8 * index) for index in range(SYSTEM_CALLS)
    ]
    assert found.gaps == ()
    read = found.slots[0]
    assert "__x64_sys_read" in {read.target.symbol, *read.target.aliases}
    assert (read.target.offset, read.target.section) == (0, Section.TEXT)
    assert read.wanted == ("__x64_sys_read", "__x64_sys_ni_syscall", "__do_sys_ni_syscall", "sys_ni_syscall")
    (span,) = read.span
    assert image.data[span.start : span.end] == words(read.target.address)


def test_tables_for_other_callers_are_read_where_there_are_any() -> None:
    image = host()
    image.put_in("rodata", words(image.symbols["exported_one"][0], 0), "ia32_sys_call_table")
    image.put_in("rodata", bytes(8), "behind_ia32")
    image.put_tables()
    found = [s for s in system_calls(subject(image)).slots if s.name.startswith("ia32")]
    assert [(s.name, s.target.symbol, s.wanted) for s in found] == [
        ("ia32_sys_call_table[0]", "exported_one", ()),
        ("ia32_sys_call_table[1]", "", ()),
    ]


def test_a_call_that_leads_where_only_a_forged_symbol_is_leads_to_no_symbol() -> None:
    image = host()
    for number in range(64):  # so many that one which is out of order is no other layout
        image.name(f"more_{number}", RODATA + PAGE_SIZE, "r")
    image.put_tables()
    slot = image.symbols["sys_call_table"][0]
    true, forged = image.word(slot), image.symbols["_etext"][0] - 16
    rows = sorted((address, letter + name) for name, (address, letter) in image.symbols.items())
    at = image.at["kallsyms_offsets"] + 4 * rows.index((true, f"{image.symbols['__x64_sys_read'][1]}__x64_sys_read"))
    (old,) = struct.unpack("<i", image.peek(at, 4))
    image.poke_image(at, struct.pack("<i", old - (forged - true)))  # falls with addresses: "6.4-percpu"
    assert system_calls(subject(image)).slots[0].target.placed is False
    image.poke(slot, words(forged))
    read = system_calls(subject(image)).slots[0].target
    assert (read.placed, read.section) == (True, Section.TEXT)
    assert (read.symbol, read.offset) != ("__x64_sys_read", 0)


def test_a_page_of_the_table_that_is_lost_is_a_gap_by_its_numbers() -> None:
    image = host()
    at = RODATA + 3 * PAGE_SIZE - 16
    image.poke_image(at, words(*[image.symbols["exported_one"][0]] * 2))
    image.name("x32_sys_call_table", at, "r")
    image.name("behind_x32", at + 80, "r")
    image.put_tables()
    assert not any(image.peek(RODATA + 3 * PAGE_SIZE, PAGE_SIZE))
    found = system_calls(subject(image))
    assert Gap("x32_sys_call_table[2..9]", "not in the image") in found.gaps
    assert [s.name for s in found.slots if s.name.startswith("x32")] == [
        "x32_sys_call_table[0]",
        "x32_sys_call_table[1]",
    ]


def test_no_more_numbers_are_read_than_any_kernel_has() -> None:
    image = host()
    image.name("x32_sys_call_table", RODATA, "r")
    for name in [n for n, (a, _) in image.symbols.items() if RODATA < a < RODATA + 0x3000]:
        image.symbols.pop(name)
    image.name("sys_call_table", RODATA + 0x3000, "r")
    image.put_tables()
    assert sum(s.name.startswith("x32") for s in system_calls(subject(image)).slots) == 1024


def test_without_a_table_or_its_end_nothing_is_known() -> None:
    image = host()
    image.symbols.pop("sys_call_table")
    image.put_tables()
    with pytest.raises(MissingDescription, match="sys_call_table"):
        system_calls(subject(image))


def test_gates_are_put_together_from_their_parts() -> None:
    image = host()
    at = image.symbols["idt_table"][0]
    value = 0xFFFF_FFFF_8123_4567
    image.poke(at + 16 * 3, struct.pack("<HHHHII", 0x4567, 0x33, 0xEF00, 0x8123, 0xFFFF_FFFF, 0))
    found = interrupt_table(subject(image))
    assert (len(found.slots), len(found.gates)) == (256, 256)
    assert found.slots[3].target.address == value
    assert (found.gates[3].vector, found.gates[3].privilege, found.gates[3].selector) == (3, 3, 0x33)
    assert (found.gates[0].privilege, found.gates[0].selector) == (0, 0x10)
    assert found.slots[0].target.symbol == "asm_exc_page_fault"
    assert found.slots[255].address == at + 16 * 255


def test_the_table_in_use_is_named_by_its_place() -> None:
    image = host()
    found = interrupt_table(subject(image))
    place = image.physical(image.symbols["idt_table"][0])
    assert found.address == place
    assert [(c.source, c.value) for c in found.in_use] == [("idt_descr", f"{place:#x}")]
    assert found.gaps == ()
    (pointer, table) = found.in_use[0].span
    assert image.data[pointer.start : pointer.end] == words(image.symbols["idt_table"][0])
    assert (table.start, table.end) == (place, place + PAGE_SIZE)


def test_a_table_in_use_that_is_not_mapped_is_a_gap() -> None:
    image = host()
    image.poke(image.symbols["idt_descr"][0] + 2, words(0xFFFF_FE00_0000_0000))
    found = interrupt_table(subject(image))
    assert found.in_use == ()
    assert [gap.what for gap in found.gaps] == ["interrupt table of idt_descr at 0xfffffe0000000000"]


def test_a_table_that_is_lost_is_unknown() -> None:
    image = host()
    frame = image.physical(image.symbols["idt_table"][0])
    with pytest.raises(EvidenceError):
        interrupt_table(subject(image, image.lime(frame)))
    image.data[frame : frame + PAGE_SIZE] = bytes(PAGE_SIZE)
    with pytest.raises(EvidenceError):
        interrupt_table(subject(image))


def test_registers_say_which_table_each_processor_uses() -> None:
    image = host()
    table = image.symbols["idt_table"][0]
    other = image.heap(bytes(16))
    memory = image.cores((image.root, table), (image.root, other), (image.root, 0xFFFF_FE00_0000_0000))
    found = interrupt_table(subject(image, memory))
    place = image.physical(table)
    assert [(c.source, c.value) for c in found.in_use] == [
        ("idt_descr", f"{place:#x}"),
        ("IDTR of CPU 0", f"{place:#x}"),
        ("IDTR of CPU 1", f"{image.physical(other):#x}"),
    ]
    assert [gap.what for gap in found.gaps] == ["interrupt table of IDTR of CPU 2 at 0xfffffe0000000000"]


def test_a_processor_that_ran_a_guest_says_nothing_of_the_host() -> None:
    image = host()
    guest = image.frame()
    found = interrupt_table(subject(image, image.cores((guest, 0x1234), (image.root, image.symbols["idt_table"][0]))))
    assert [c.source for c in found.in_use] == ["idt_descr", "IDTR of CPU 1"]
    assert found.gaps == ()
