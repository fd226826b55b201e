"""Constants that are written into instructions."""

from hypervigil.linux.text.constants import constant_sites
from hypervigil.linux.text.place import Place
from tests.linux.text.world import DATA, TEXT, World, place, table

TABLE = DATA + 0x2000
SHIFTS = [TEXT + 0x40, TEXT + 0x50, TEXT + 0x60]
POINTERS = [TEXT + 0x80, TEXT + 0x90]


def built(*, variable: bool = True, original: bytes | None = None) -> Place:
    world = World()
    if variable:
        world.symbol("d_hash_shift", DATA + 0x10, "d")
        world.symbol("dentry_hashtable", DATA + 0x18, "d")
    world.number(DATA + 0x10, 12, 4)
    world.number(DATA + 0x18, DATA)
    for at, value in zip(SHIFTS, (12, 12, 13), strict=True):
        world.number(at, value, 1)
    for at, value in zip(POINTERS, (DATA, DATA + 8), strict=True):
        world.number(at, value)
    tables = {
        "runtime_shift_d_hash_shift": table(TABLE, *SHIFTS),
        "runtime_ptr_dentry_hashtable": table(TABLE + 0x100, *POINTERS),
        "runtime_other": table(TABLE + 0x200, *POINTERS),
    }
    return place(world, tables, original=original)


def test_an_operand_has_the_value_of_its_variable() -> None:
    sites = constant_sites(built())
    assert sites.address.tolist() == [*POINTERS, *SHIFTS]
    assert sites.size.tolist() == [8, 8, 1, 1, 1]
    assert sites.lawful().tolist() == [True, False, True, True, False]
    assert sites.expected(1) == (DATA.to_bytes(8, "little"),)
    assert sites.expected(4) == (b"\x0c",)


def test_where_the_variable_is_not_kept_all_operands_are_the_same() -> None:
    sites = constant_sites(built(variable=False))
    assert sites.lawful().tolist()[2:] == [True, True, False]


def test_what_was_built_is_no_value() -> None:
    """Every operand is written at boot: one that still holds what was linked is changed back."""
    placeholder = (0x0123456789ABCDEF).to_bytes(8, "little")
    original = b"\xcc" * (POINTERS[1] - TEXT) + placeholder
    made = built(original=original)
    assert constant_sites(made).lawful().tolist() == [True, False, True, True, False]


def test_a_table_without_places_has_no_sites() -> None:
    assert len(constant_sites(place(World(), {"runtime_ptr_x": table(TABLE)})).address) == 0
