"""Where tables of patch sites stand."""

from hypervigil.core.facts import Gap
from hypervigil.facts.pointers import Section
from hypervigil.linux.modules import Area, Module
from hypervigil.linux.text.sites import Table
from hypervigil.linux.text.tables import kernel_tables, module_tables
from tests.linux.text.world import DATA, MODULE, World

RODATA = MODULE + 0x1000
LOADED = Module(
    name="kvm",
    address=DATA + 0x100,
    state="live",
    areas=(Area(MODULE, RODATA, Section.TEXT), Area(RODATA, RODATA + 0x100, Section.RODATA)),
    size=0x80,
)
PLACES = {
    ".text": MODULE,
    ".altinstr_aux": MODULE + 0x800,
    ".exit.text": MODULE + 0x880,
    ".altinstructions": RODATA,
    ".smp_locks": RODATA + 0x40,
    ".rodata": RODATA + 0x50,
    ".return_sites": RODATA + 0xF0,
    ".init.text": MODULE + 0x100000,
    ".retpoline_sites": MODULE + 0x100000,
}


def world() -> World:
    made = World()
    made.struct(
        *("module", ("jump_entries", 0, 8), ("num_jump_entries", 8, 4), ("bug_table", 16, 8), ("num_bugs", 24, 4)),
        *(("extable", 32, 8), ("num_exentries", 40, 4)),
    )
    made.struct("bug_entry", ("bug_addr_disp", 0, 4), ("flags", 10, 2))
    return made


def test_the_kernels_tables_lie_between_their_symbols() -> None:
    made = world()
    made.symbol("__start___jump_table", DATA + 0x10, "D")
    made.symbol("__stop___jump_table", DATA + 0x30, "D")
    made.symbol("__start___bug_table", DATA + 0x40, "D")
    made.put(DATA + 0x10, b"\x01" * 0x20)
    gaps: list[Gap] = []
    assert kernel_tables(made.kernel(), gaps) == {"__jump_table": Table(DATA + 0x10, b"\x01" * 0x20)}
    assert gaps == []


def test_a_table_of_no_sense_is_a_gap() -> None:
    for end in (DATA + (1 << 30), DATA + 0x100000):
        made = world()
        made.symbol("__start___jump_table", DATA + 0x10, "D")
        made.symbol("__stop___jump_table", end, "D")
        gaps: list[Gap] = []
        assert kernel_tables(made.kernel(), gaps) == {}
        assert [gap.what for gap in gaps] == ["__jump_table of the kernel"]


def test_a_modules_tables_are_counted_or_end_at_the_next_section() -> None:
    made = world()
    made.number(LOADED.address, DATA + 0x800)
    made.number(LOADED.address + 8, 2, 4)
    made.number(LOADED.address + 16, DATA + 0x900)
    made.number(LOADED.address + 24, 3, 4)
    gaps: list[Gap] = []
    found = module_tables(made.kernel(), LOADED, PLACES, gaps)
    assert {name: (table.address, len(table.data)) for name, table in found.items()} == {
        "__jump_table": (DATA + 0x800, 32),
        "__bug_table": (DATA + 0x900, 36),
        ".altinstructions": (RODATA, 0x40),
        ".smp_locks": (RODATA + 0x40, 0x10),
        ".return_sites": (RODATA + 0xF0, 0x10),
    }
    assert gaps == []


def test_a_module_whose_type_is_unknown_is_a_gap() -> None:
    gaps: list[Gap] = []
    assert module_tables(World().kernel(), LOADED, PLACES, gaps) == {}
    assert [gap.what for gap in gaps] == ["tables of patch sites of module kvm"]
