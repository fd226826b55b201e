"""Alternatives."""

import pytest

from hypervigil.linux.text.alternatives import Alternative, alternative_sites, alternatives
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import Table
from hypervigil.linux.text.thunks import Thunks
from tests.linux.text.world import DATA, MODULE, TEXT, WILD, World, place, registers, rel, u64

AT, OTHER, FUNCTION = TEXT + 0x40, TEXT + 0x800, TEXT + 0x900
BUILT = b"\x0f\x1f\x44\x00\x00"


def entry(index: int, at: int, size: int, replacement: int, length: int, width: int = 12) -> bytes:
    here = DATA + width * index
    distances = [(to - place).to_bytes(4, "little", signed=True) for place, to in ((here, at), (here + 4, replacement))]
    return b"".join(distances) + bytes(width - 10) + bytes([size, length])


def built(site: bytes, replacement: bytes, *, original: bytes | None = None) -> Place:
    world = World()
    world.put(AT, site)
    world.put(OTHER, replacement)
    table = Table(DATA, entry(0, AT, len(site), OTHER, len(replacement)))
    whole = None if original is None else b"\xcc" * (AT - TEXT) + original
    return place(world, {".altinstructions": table}, original=whole)


@pytest.mark.parametrize(
    ("site", "replacement"),
    [
        (b"\x0f\x01\xcb", b"\x0f\x01\xcb"),
        (b"\x0f\x09\x0f\x1f\x00", b"\x0f\x09"),
        (b"\x0f\x09\x90\x90\x90", b"\x0f\x09"),
        (rel(b"\xe8", AT, FUNCTION), rel(b"\xe8", OTHER, FUNCTION)),
        (b"\xeb\x1e\xcc\xcc\xcc", rel(b"\xe9", OTHER, AT + 0x20)),
        (b"\x0f\x1f\x44\x00\x00", b""),
    ],
)
def test_a_place_may_hold_its_replacement(site: bytes, replacement: bytes) -> None:
    sites = alternative_sites(built(site, replacement))
    assert {name: mask.tolist() for name, mask in sites.states} == {"replaced": [True], "as built": [False]}


def test_without_a_package_other_instructions_count_as_built() -> None:
    sites = alternative_sites(built(b"\x48\x89\xf8\x90\x90", b"\x0f\x01\xcb"))
    assert sites.states[1][1].tolist() == [True]


def test_without_a_package_a_branch_to_foreign_code_does_not() -> None:
    for target in (WILD, DATA, MODULE):
        sites = alternative_sites(built(rel(b"\xe9", AT, target), b"\x0f\x01\xcb"))
        assert sites.lawful().tolist() == [False], hex(target)
        assert sites.expected(0) == (b"\x0f\x01\xcb",)


def test_with_a_package_only_what_was_built_does() -> None:
    for site, lawful in ((BUILT, True), (b"\x90" * 5, True), (b"\x48\x89\xf8\x90\x90", False)):
        sites = alternative_sites(built(site, b"\x0f\x01\xcb", original=BUILT))
        assert sites.lawful().tolist() == [lawful]
        assert sites.expected(0) == (BUILT, b"\x0f\x01\xcb")


def test_entries_of_one_place_are_one_alternative() -> None:
    world = World()
    rows = (
        entry(0, AT, 3, OTHER, 3, 14) + entry(1, AT, 5, OTHER + 8, 0, 14) + entry(2, DATA, 5, OTHER, 1, 14) + bytes(9)
    )
    world.struct("alt_instr", ("instr_offset", 0, 4), ("replacementlen", 13, 1))
    found = alternatives(place(world, {".altinstructions": Table(DATA, rows)}))
    assert found == [Alternative(AT, 5, ((OTHER, 3), (OTHER + 8, 0)))]


def test_an_entry_of_no_length_is_none() -> None:
    assert alternatives(place(World(), {".altinstructions": Table(DATA, entry(0, AT, 0, OTHER, 3))})) == []


MOVED = 0x3A8_0000


@pytest.mark.parametrize(
    ("distance", "lawful"),
    [(0x1234 + OTHER - AT - MOVED, True), (0x1234 + OTHER - AT, True), (0x1234 - MOVED, False), (0x1234 + 1, False)],
)
def test_a_replacement_of_a_kernel_that_does_not_say_what_moves(distance: int, lawful: bool) -> None:  # noqa: FBT001 - a case
    """Its distance to a per-CPU variable shrinks by how far the kernel was moved, and follows it to the place."""

    def store(distance: int) -> bytes:
        return b"\x65\x48\xc7\x05" + (distance % (1 << 32)).to_bytes(4, "little") + b"\xff\xff\xff\xff"

    made = built(store(distance), b"", original=b"\x90" * 12)
    table = Table(DATA, entry(0, AT, 12, OTHER, 12))

    def as_built(address: int, size: int) -> bytes:
        return store(0x1234)[:size] if address == OTHER else b""

    moved = made._replace(tables={".altinstructions": table}, as_built=as_built, moved_by=MOVED)
    assert alternative_sites(moved).lawful().tolist() == [lawful]


THUNK, BUILT_IN = TEXT + 0xA00, TEXT + 0xB00


def test_a_replacement_returns_by_the_thunk_that_was_chosen() -> None:
    """Its returns are patched before it is copied; a kernel's replacements are not in memory any more."""
    replacement = b"\xf3\xa4" + rel(b"\xe9", OTHER + 2, BUILT_IN)
    for target, lawful in ((THUNK, True), (BUILT_IN, True), (WILD, False)):
        made = built(b"\xf3\xa4" + rel(b"\xe9", AT + 2, target), b"\xcc" * 7, original=b"\x90" * 7)
        made = made._replace(
            as_built=lambda address, size: replacement[:size] if address == OTHER else b"",
            registry=made.registry._replace(thunks=Thunks((THUNK, BUILT_IN), u64(), registers())),
        )
        assert alternative_sites(made).lawful().tolist() == [lawful], hex(target)


POINTER = DATA + 0x100


def by_pointer(site: bytes, target: int, *, before: bytes = b"", named: str = "callee") -> list[bool]:
    """A call through a pointer that alternatives make direct."""
    world = World()
    world.put(AT, site)
    world.put(OTHER, b"\x0f\x01\xcb\x90\x90")
    world.put(FUNCTION - len(before), before)
    world.number(POINTER, target)
    world.symbol(named, FUNCTION)
    call = b"\xff\x15" + (POINTER - AT - 6).to_bytes(4, "little", signed=True)
    table = Table(DATA, entry(0, AT, 6, OTHER, 5))
    made = place(world, {".altinstructions": table}, original=b"\xcc" * (AT - TEXT) + call)
    found: list[bool] = alternative_sites(made).lawful().tolist()
    return found


def test_a_call_through_a_pointer_may_become_direct() -> None:
    assert by_pointer(rel(b"\xe8", AT, FUNCTION) + b"\x90", FUNCTION) == [True]
    assert by_pointer(rel(b"\xe8", AT, FUNCTION + 1) + b"\x90", FUNCTION) == [False]
    assert by_pointer(rel(b"\xe9", AT, FUNCTION) + b"\x90", FUNCTION) == [False]
    assert by_pointer(rel(b"\xe8", AT, WILD) + b"\x90", WILD) == [False]


def test_it_may_be_counted_or_be_nothing() -> None:
    counting = b"\x65\x48\xc1\x3d\x01\x02\x03\x04\x05"
    site = rel(b"\xe8", AT, FUNCTION - 9) + b"\x90"
    assert by_pointer(site, FUNCTION, before=counting) == [True]
    assert by_pointer(site, FUNCTION, before=counting[:-1] + b"\x06") == [False]
    assert by_pointer(b"\x66\x0f\x1f\x44\0\0", FUNCTION, named="nop_func") == [True]
    assert by_pointer(b"\x66\x0f\x1f\x44\0\0", FUNCTION) == [False]
