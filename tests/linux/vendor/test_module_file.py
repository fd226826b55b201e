"""A module's file laid out where the module is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError, EvidenceError, UnsupportedEvidence
from hypervigil.linux.vendor.elf import ElfFile
from hypervigil.linux.vendor.module_file import Laid, Loaded, build_module, is_kept
from tests.linux.vendor import elf_builder as elf
from tests.linux.vendor.elf_builder import Elf
from tests.linux.vendor.shipped import ShippedModule

PLACES = {".text": 0xFFFF_FFFF_C000_0000, ".rodata": 0xFFFF_FFFF_C000_8000, ".data": 0xFFFF_FFFF_C001_0000}
PER_CPU = 0x1_2340
KNOWN = {
    "printk": 0xFFFF_FFFF_8100_0100,
    "vfs_read": 0xFFFF_FFFF_8100_0200,
    "__x86_return_thunk": 0xFFFF_FFFF_8100_0300,
}


def laid(made: Elf, places: dict[str, int] = PLACES) -> Laid:
    return build_module(ElfFile(memoryview(made.data())), "x.ko", Loaded("x", places, PER_CPU, KNOWN.get))


def part(found: Laid, name: str) -> bytes:
    return next(one.data.tobytes() for one in found.built.parts if one.name == name)


@pytest.mark.parametrize(
    ("kind", "addend", "expected"),
    [
        (elf.ABS64, 5, (0xFFFF_FFFF_C000_0012).to_bytes(8, "little")),
        (elf.ABS32S, 5, (0xC000_0012).to_bytes(4, "little")),
        (elf.ABS32, -13, (0xC000_0000).to_bytes(4, "little")),
        (elf.PC32, -4, (0xFFFF_8001).to_bytes(4, "little")),
        (elf.PLT32, -4, (0xFFFF_8001).to_bytes(4, "little")),
        (elf.PC64, 0, (0xFFFF_FFFF_FFFF_8005).to_bytes(8, "little")),
    ],
)
def test_every_kind_of_relocation_is_applied(kind: int, addend: int, expected: bytes) -> None:
    made = Elf()
    text = made.section(".text", b"\x90" * 32, elf.ALLOC | elf.EXEC)
    rodata = made.section(".rodata", b"\xaa" * 24)
    made.relocate(rodata, 8, kind, made.symbol("own", text, 13), addend)
    assert part(laid(made), ".rodata") == b"\xaa" * 8 + expected + b"\xaa" * (16 - len(expected))


def test_symbols_of_others_per_cpu_ones_and_absolute_ones_have_their_values() -> None:
    made = Elf()
    rodata = made.section(".rodata", bytes(32))
    per_cpu = made.section(".data..percpu", bytes(16), elf.ALLOC | elf.WRITE)
    for index, symbol in enumerate(
        (
            made.symbol("printk", elf.UNDEFINED),
            made.symbol("mine", per_cpu, 8),
            made.symbol("number", elf.ABSOLUTE, 0x77),
            made.symbol("perhaps", elf.UNDEFINED, binding=elf.WEAK),
        )
    ):
        made.relocate(rodata, 8 * index, elf.ABS64, symbol)
    found = laid(made)
    numbers = np.frombuffer(part(found, ".rodata"), "<u8").tolist()
    assert numbers == [KNOWN["printk"], PER_CPU + 8, 0x77, 0]
    assert found.undefined == ()


def test_a_symbol_that_nobody_defines_is_named_once() -> None:
    made = Elf()
    text = made.section(".text", bytes(16), elf.ALLOC | elf.EXEC)
    lost = made.symbol("lost", elf.UNDEFINED)
    for offset in (0, 4, 8):
        made.relocate(text, offset, elf.PC32, lost)
    found = laid(made)
    assert (found.undefined, found.unplaced) == (("lost",), ())
    assert found.open == tuple((PLACES[".text"] + offset, 4) for offset in (0, 4, 8))


def test_places_that_refer_to_a_section_whose_own_is_not_known_are_told() -> None:
    made = Elf()
    text = made.section(".text", bytes(32), elf.ALLOC | elf.EXEC)
    empty = made.section(".init.data", b"")
    made.relocate(text, 3, elf.PC32, made.symbol("nothing", empty))
    made.relocate(text, 16, elf.ABS64, made.symbol("more", empty))
    assert laid(made).unplaced == ((PLACES[".text"] + 3, 4, True), (PLACES[".text"] + 16, 8, False))


def test_a_section_without_bytes_or_place_or_of_per_cpu_variables_is_no_part() -> None:
    made = ShippedModule("x").elf
    made.section(".data..percpu", bytes(16), elf.ALLOC | elf.WRITE)
    found = laid(made)
    assert [one.name for one in found.built.parts] == [".text", ".rodata", ".data"]
    assert [(one.executable, one.writable) for one in found.built.parts] == [
        (True, False),
        (False, False),
        (False, True),
    ]


def test_a_relocation_of_another_kind_is_refused() -> None:
    made = Elf()
    text = made.section(".text", bytes(16), elf.ALLOC | elf.EXEC)
    made.relocate(text, 0, 9, made.symbol("printk", elf.UNDEFINED))
    with pytest.raises(UnsupportedEvidence, match="type 9"):
        laid(made)


def test_one_that_does_nothing_is_passed_over() -> None:
    made = Elf()
    text = made.section(".text", b"\x90" * 4, elf.ALLOC | elf.EXEC)
    made.relocate(text, 1 << 40, 0, 99)
    assert part(laid(made), ".text") == b"\x90" * 4


@pytest.mark.parametrize("size", [2, 8, 16])
@pytest.mark.parametrize("offset", [0, 13, 16, 1 << 31, 1 << 63, (1 << 64) - 1])
def test_a_relocation_outside_of_its_section_is_refused(size: int, offset: int) -> None:
    made = Elf()
    text = made.section(".text", bytes(size), elf.ALLOC | elf.EXEC)
    made.relocate(text, offset, elf.PC32, made.symbol("printk", elf.UNDEFINED))
    if offset + 4 <= size:
        assert part(laid(made), ".text")[:4] != bytes(4)
    else:
        with pytest.raises(DecodeError, match="outside of it"):
            laid(made)


def test_a_relocation_by_a_symbol_that_is_none_is_refused() -> None:
    made = Elf()
    text = made.section(".text", bytes(16), elf.ALLOC | elf.EXEC)
    last = made.symbol("printk", elf.UNDEFINED)
    for number in (last + 1, (1 << 32) - 1):
        made.relocations = {text: [(0, elf.PC32, number, 0)]}
        with pytest.raises(DecodeError, match="a symbol that is none"):
            laid(made)


def test_what_a_module_keeps_for_good() -> None:
    made = Elf()
    for name, flags in (
        (".text", elf.ALLOC | elf.EXEC),
        (".rodata", elf.ALLOC),
        (".init.text", elf.ALLOC | elf.EXEC),
        (".init.rodata", elf.ALLOC),
        (".exit.text", elf.ALLOC | elf.EXEC),
        (".data", elf.ALLOC | elf.WRITE),
        (".modinfo", elf.ALLOC),
        ("__versions", elf.ALLOC),
        (".comment", 0),
    ):
        made.section(name, b"\0", flags)
    made.section(".empty", b"")
    sections = ElfFile(memoryview(made.data())).sections
    assert [s.name for s in sections if is_kept(s, unloads=True)] == [".text", ".rodata", ".exit.text"]
    assert [s.name for s in sections if is_kept(s, unloads=False)] == [".text", ".rodata"]


DAMAGED = ShippedModule("x").file()


@given(st.lists(st.tuples(st.integers(0, len(DAMAGED) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_any_damage_gives_a_module_or_a_reason(changes: list[tuple[int, int]]) -> None:
    data = bytearray(DAMAGED)
    for place, value in changes:
        data[place] = value
    places = {**PLACES, ".return_sites": PLACES[".rodata"] + 0x100, "": PLACES[".data"]}
    try:
        found = build_module(ElfFile(memoryview(data)), "x.ko", Loaded("x", places, PER_CPU, KNOWN.get))
    except EvidenceError:
        return
    assert sum(len(one.data) for one in found.built.parts) <= len(data)
