"""Code of a module that none of its symbols names."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import MissingMemory
from hypervigil.core.units import VirtAddr
from hypervigil.facts.pointers import Section
from hypervigil.linux.modules import Area, Module
from hypervigil.linux.text.branches import Dead
from hypervigil.linux.text.sites import Table
from hypervigil.linux.text.unnamed import FIXUPS, REPLACEMENTS, TESTS, dead_code, unnamed_code
from tests.linux.text.world import DATA, MODULE, MODULE_END, WILD, World, rel

LOADED = Module(
    name="kvm",
    address=DATA + 0x100,
    state="live",
    areas=(Area(MODULE, MODULE_END, Section.TEXT), Area(WILD, WILD + 0x1000, Section.INIT)),
    size=0x80,
)
AT = MODULE + 0x800
RODATA = DATA + 0x1000


def alternatives(*replacements: tuple[int, int]) -> Table:
    """Entries of ``struct alt_instr`` by address and length of their replacement; their sites are in init text."""
    rows = [
        struct.pack("<iiHBB", WILD - RODATA - 12 * row, at - RODATA - 12 * row - 4, 0, 5, size)
        for row, (at, size) in enumerate(replacements)
    ]
    return Table(RODATA, b"".join(rows))


def extent(section: str, world: World, table: Table | None = None, at: int = AT) -> tuple[int, int] | None:
    names = {REPLACEMENTS: ".altinstructions", FIXUPS: "__ex_table"}
    tables = {names[section]: table} if table else {}
    return unnamed_code(world.kernel(), LOADED, {section: at, ".text": MODULE}, tables).get(section)


@pytest.mark.parametrize(
    ("pieces", "size"),
    [
        ([(AT, 5), (AT + 5, 3), (AT + 8, 0)], 8),
        ([(AT + 5, 3), (AT, 5)], 8),
        ([(AT, 5), (AT + 3, 4)], 7),
        ([(AT, 5), (AT + 6, 3)], 5),
        ([(AT + 1, 5)], 0),
        ([(AT - 4, 5), (AT, 2)], 2),
        ([], 0),
    ],
)
def test_replacements_reach_as_far_as_they_follow_each_other(pieces: list[tuple[int, int]], size: int) -> None:
    assert extent(REPLACEMENTS, World(), alternatives(*pieces)) == (AT, AT + size)


def feature_test(at: int) -> bytes:
    return b"\xf6\x05\x10\0\0\0\x08" + rel(b"\x0f\x85", at + 7, MODULE) + rel(b"\xe9", at + 13, MODULE)


def test_feature_tests_are_told_by_their_form() -> None:
    world = World()
    world.put(AT, feature_test(AT) + feature_test(AT + 18) + b"\x48\x31\xc0\xc3")
    assert extent(TESTS, world) == (AT, AT + 36)
    world.put(AT, b"\x48")
    assert extent(TESTS, world) == (AT, AT)


def fixup(at: int) -> bytes:
    return b"\x6a\x01\x57" + rel(b"\xe9", at + 3, MODULE)


def test_fixups_are_those_that_the_exception_table_leads_to() -> None:
    world = World()
    world.put(AT, fixup(AT) + fixup(AT + 8) + fixup(AT + 16))
    world.put(MODULE_END - 2, b"\x31\xc0")

    def led_to(*targets: int) -> tuple[int, int] | None:
        rows = [struct.pack("<iii", 0, to - RODATA - 12 * n - 4, 0) for n, to in enumerate(targets)]
        return extent(FIXUPS, world, Table(RODATA, b"".join(rows)))

    assert led_to(AT, AT + 8, MODULE) == (AT, AT + 16)
    assert led_to(AT, AT + 16) == (AT, AT + 8)
    assert led_to(AT + 8) == (AT, AT)
    assert led_to(AT, MODULE_END - 2) == (AT, AT + 8)


def test_a_section_elsewhere_is_none_of_the_text() -> None:
    assert extent(TESTS, World(), at=WILD) is None
    assert extent(TESTS, World(), at=MODULE_END) is None
    assert unnamed_code(World().kernel(), LOADED, {}, {}) == {}


def test_a_section_never_reaches_out_of_the_text() -> None:
    at = MODULE_END - 2
    assert extent(REPLACEMENTS, World(), alternatives((at, 200)), at) == (at, MODULE_END)


def test_what_is_lost_is_told() -> None:
    world = World()
    del world.pages[MODULE + 0x1000]
    with pytest.raises(MissingMemory):
        extent(TESTS, world)


@given(st.binary(max_size=0x100), st.lists(st.tuples(st.integers(0, 0x120), st.integers(0, 255)), max_size=8))
def test_any_bytes_and_tables_give_a_range_in_the_text(data: bytes, pieces: list[tuple[int, int]]) -> None:
    world = World()
    world.put(AT, data)
    rows = [struct.pack("<iii", 0, AT + to - RODATA - 12 * n - 4, 0) for n, (to, _) in enumerate(pieces)]
    tables = {
        ".altinstructions": alternatives(*((AT + at, size) for at, size in pieces)),
        "__ex_table": Table(RODATA, b"".join(rows)),
    }
    found = unnamed_code(world.kernel(), LOADED, dict.fromkeys((REPLACEMENTS, TESTS, FIXUPS), AT), tables)
    assert all(AT == low <= high <= MODULE_END for low, high in found.values())


def test_dead_code_and_the_init_text_that_it_led_to() -> None:
    init = MODULE + 0x10_0000
    unnamed = {TESTS: (AT, AT + 36), REPLACEMENTS: (AT + 36, AT + 40), FIXUPS: (AT + 40, AT + 60)}
    dead = (Dead(AT, AT + 36, init, init + (1 << 18)), Dead(AT + 36, AT + 40, init, init + (1 << 18)))
    assert dead_code({".init.text": VirtAddr(init)}, unnamed) == dead
    assert dead_code({".init.text": init}, {}) == ()
    assert dead_code({".text": MODULE}, unnamed) == ()
