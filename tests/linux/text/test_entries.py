"""First instructions of functions."""

import pytest

from hypervigil.linux.text.code import read_code
from hypervigil.linux.text.entries import Entry, odd_entries
from tests.linux.text.world import DATA, MODULE, TEXT, TEXT_END, WILD, World, landing, rel, u64

FIRST, SECOND = TEXT + 0x40, TEXT + 0x80
ENDBR, NOP = b"\xf3\x0f\x1e\xfa", b"\x0f\x1f\x44\x00\x00"


def entries(first: bytes, known: tuple[int, ...] = ()) -> tuple[Entry, ...]:
    world = World()
    world.put(WILD, b"\x90\xc3")
    world.put(MODULE, b"\x90\xc3")
    world.number(DATA + 0x100, WILD)
    world.number(DATA + 0x108, FIRST)
    for at in (TEXT, FIRST, SECOND, SECOND + 0x40):
        world.put(at, b"\x55" * 0x30)
        world.symbol(f"function_{at:x}", at)
    world.symbol("table", TEXT + 0x2000, "d")
    world.put(FIRST, first)
    system = world.system()
    code = read_code(system.kernel, "kernel", TEXT, TEXT_END)
    return odd_entries(code, system.kernel.symbols, landing(system.kernel), u64(*known))


@pytest.mark.parametrize(
    ("what", "first", "at", "target"),
    [
        ("a jump into another function", rel(b"\xe9", FIRST, SECOND + 4), 0, SECOND + 4),
        ("the same behind a landing pad", ENDBR + rel(b"\xe9", FIRST + 4, SECOND + 4), 4, SECOND + 4),
        ("the same behind a tracer's nop", ENDBR + NOP + rel(b"\xe9", FIRST + 9, SECOND + 4), 9, SECOND + 4),
        ("an int3", b"\xcc\x55", 0, None),
        ("an address in a register", b"\x48\xb8" + WILD.to_bytes(8, "little") + b"\xff\xe0", 0, WILD),
        ("an address in a register above", b"\x49\xbb" + WILD.to_bytes(8, "little") + b"\x41\xff\xe3", 0, WILD),
        ("a short address in a register", b"\x48\xc7\xc0" + (WILD & 0xFFFFFFFF).to_bytes(4, "little"), 0, WILD),
        ("an address that is returned to", b"\x68" + (MODULE & 0xFFFFFFFF).to_bytes(4, "little") + b"\xc3", 0, MODULE),
        ("a jump through a pointer", rel(b"\xff\x25", FIRST, DATA + 0x100), 0, WILD),
        ("a call through a pointer", rel(b"\xff\x15", FIRST, DATA + 0x100), 0, WILD),
    ],
)
def test_a_function_that_begins_with_a_way_out(what: str, first: bytes, at: int, target: int | None) -> None:
    (one,) = entries(first)
    assert (one.address, one.target) == (FIRST + at, target), what


@pytest.mark.parametrize(
    "first",
    [
        rel(b"\xe9", FIRST, SECOND),
        rel(b"\xe9", FIRST, FIRST + 0x10),
        b"\xcc\xcc\xcc\xcc",
        b"\x48\xb8" + FIRST.to_bytes(8, "little") + b"\xff\xe0",
        b"\x48\xb8" + bytes(8),
        b"\x68" + (MODULE & 0xFFFFFFFF).to_bytes(4, "little") + b"\x55",
        rel(b"\xff\x25", FIRST, DATA + 0x108),
    ],
)
def test_what_compilers_do_is_no_way_out(first: bytes) -> None:
    assert entries(first) == ()


def test_a_patch_site_is_judged_as_such() -> None:
    assert entries(rel(b"\xe9", FIRST, SECOND + 4), known=(FIRST,)) == ()
