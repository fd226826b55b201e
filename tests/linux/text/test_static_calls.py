"""Static calls and their trampolines against their keys."""

import pytest

from hypervigil.linux.text.code import Code
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import NOP5, Table
from hypervigil.linux.text.static_calls import static_call_keys, static_call_sites, static_call_trampolines
from hypervigil.linux.text.thunks import Thunks
from tests.linux.text.world import DATA, MODULE_END, TEXT, WILD, World, place, registers, rel, u64

AT, FUNCTION, RETURN0, WARN, THUNK = TEXT + 0x40, TEXT + 0x200, TEXT + 0x300, TEXT + 0x400, TEXT + 0x500
AWAY = TEXT + 0x700
TRAMPOLINE, KEY, TABLE = TEXT + 0x600, DATA + 0x100, DATA + 0x2000
THUNKS = Thunks((THUNK,), u64(), registers())
PLAIN = b"\xc3\xcc\xcc\xcc\xcc"


def built(
    site: bytes, function: int, *, tail: bool = False, trampoline: bytes = b"", key: int = KEY, before: bytes = b""
) -> Place:
    world = World()
    world.put(FUNCTION - len(before), before)
    world.put(AT, site)
    world.number(KEY, function)
    world.put(TRAMPOLINE, trampoline)
    for name, address in (
        ("__static_call_return0", RETURN0),
        ("__WARN_trap", WARN),
        ("__SCT__run", TRAMPOLINE),
        ("__static_call_return", AWAY),
    ):
        world.symbol(name, address)
    world.symbol("__SCK__run", KEY, "D")
    entry = (AT - TABLE).to_bytes(4, "little", signed=True) + (key - TABLE - 4 | tail).to_bytes(
        4, "little", signed=True
    )
    return place(world, {".static_call_sites": Table(TABLE, entry)}, thunks=THUNKS)


@pytest.mark.parametrize(
    ("site", "function", "tail", "state"),
    [
        (rel(b"\xe8", AT, FUNCTION), FUNCTION, False, "direct"),
        (rel(b"\xe9", AT, FUNCTION), FUNCTION, True, "direct"),
        (rel(b"\x0f\x85", AT, FUNCTION), FUNCTION, True, "direct"),
        (NOP5[0], 0, False, "nop"),
        (PLAIN, 0, True, "return"),
        (rel(b"\xe9", AT, THUNK), 0, True, "return"),
        (b"\x2e\x2e\x2e\x31\xc0", RETURN0, False, "zero"),
        (b"\x66\x66\x48\x31\xc0", RETURN0, False, "zero"),
        (b"\x67\x48\x0f\xb9\x3a", WARN, False, "trap"),
    ],
)
def test_a_site_leads_to_the_function_of_its_key(site: bytes, function: int, tail: bool, state: str) -> None:  # noqa: FBT001 - a case
    sites = static_call_sites(built(site, function, tail=tail))
    assert {name: mask.tolist() for name, mask in sites.states}[state] == [True]


@pytest.mark.parametrize(
    ("what", "site", "function", "tail"),
    [
        ("a call of something else", rel(b"\xe8", AT, FUNCTION + 4), FUNCTION, False),
        ("a call in place of a tail jump", rel(b"\xe8", AT, FUNCTION), FUNCTION, True),
        ("a jump in place of a call", rel(b"\xe9", AT, FUNCTION), FUNCTION, False),
        ("a nop though there is a function", NOP5[0], FUNCTION, False),
        ("a return that is no tail call", PLAIN, 0, False),
        ("zero without the function for it", b"\x2e\x2e\x2e\x31\xc0", FUNCTION, False),
        ("a trap without the function for it", b"\x67\x48\x0f\xb9\x3a", FUNCTION, False),
        ("a jump to a wrong thunk", rel(b"\xe9", AT, THUNK + 1), 0, True),
    ],
)
def test_anything_else_is_not_lawful(what: str, site: bytes, function: int, tail: bool) -> None:  # noqa: FBT001 - a case
    sites = static_call_sites(built(site, function, tail=tail))
    assert sites.lawful().tolist() == [False], what
    assert len(sites.expected(0)[0]) == 5


@pytest.mark.parametrize(
    ("before", "lawful"),
    [
        (b"\x65\x48\xc1\x3d\x01\x02\x03\x04\x05", True),
        (b"\x65\x48\xc1\x3d\x01\x02\x03\x04\x06", False),
        (b"\x90" * 9, True),  # it goes on into the function
        (b"\x90" * 8 + b"\xc3", False),
    ],
)
def test_a_call_may_be_counted_before_its_function(before: bytes, lawful: bool) -> None:  # noqa: FBT001 - a case
    made = built(rel(b"\xe8", AT, FUNCTION - 9), FUNCTION, before=before)
    assert static_call_sites(made).lawful().tolist() == [lawful]


@pytest.mark.parametrize(
    ("trampoline", "function", "lawful"),
    [
        (rel(b"\xe9", TRAMPOLINE, FUNCTION), FUNCTION, True),
        (rel(b"\xe9", TRAMPOLINE, WILD), FUNCTION, False),
        (rel(b"\xe8", TRAMPOLINE, FUNCTION), FUNCTION, False),
        (rel(b"\xe9", TRAMPOLINE, THUNK), 0, True),
        (PLAIN, 0, True),
        (PLAIN, FUNCTION, False),
    ],
)
def test_a_trampoline_jumps_to_the_function_of_its_key(trampoline: bytes, function: int, lawful: bool) -> None:  # noqa: FBT001 - a case
    sites = static_call_trampolines(built(b"", function, trampoline=trampoline))
    assert (sites.address.tolist(), sites.lawful().tolist()) == ([TRAMPOLINE], [lawful])


@pytest.mark.parametrize(
    ("function", "lawful"), [(FUNCTION, True), (0, True), (WILD, False), (MODULE_END - 0x10, False), (DATA, False)]
)
def test_a_key_holds_a_function(function: int, lawful: bool) -> None:  # noqa: FBT001 - a case
    assert static_call_keys(built(b"", function)).lawful().tolist() == [lawful]


def test_a_key_that_is_not_there_is_told() -> None:
    sites = static_call_sites(built(NOP5[0], FUNCTION, key=DATA + 0x100000))
    assert sites.unseen == (("1 keys of static calls of kernel", "not in the image"),)


def conditional(site: bytes, function: int, original: bytes) -> Place:
    made = built(site, function, tail=True)
    whole = bytearray(made.code.data)
    whole[AT - TEXT : AT - TEXT + len(original)] = original
    return made._replace(original=Code("kernel", TEXT, bytes(whole)))


@pytest.mark.parametrize(
    ("site", "original", "lawful"),
    [
        (rel(b"\x0f\x85", AT, FUNCTION), rel(b"\x0f\x85", AT, TRAMPOLINE), True),
        (rel(b"\x0f\x84", AT, FUNCTION), rel(b"\x0f\x85", AT, TRAMPOLINE), False),
        (rel(b"\x0f\x85", AT, FUNCTION), rel(b"\xe9", AT, TRAMPOLINE), False),
        (rel(b"\xe9", AT, FUNCTION), rel(b"\x0f\x85", AT, TRAMPOLINE), False),
        (rel(b"\xe9", AT, FUNCTION), rel(b"\xe9", AT, TRAMPOLINE), True),
    ],
)
def test_a_conditional_tail_call_stays_one_by_its_condition(site: bytes, original: bytes, lawful: bool) -> None:  # noqa: FBT001 - a case
    sites = static_call_sites(conditional(site, FUNCTION, original))
    assert sites.lawful().tolist() == [lawful]
    assert sites.size.tolist() == [len(site)]


def test_a_key_that_is_not_exported_is_named_by_its_trampoline() -> None:
    """As a module is built; the loader looks the key up."""
    made = built(rel(b"\xe8", AT, FUNCTION), FUNCTION, key=TRAMPOLINE)
    assert static_call_sites(made).lawful().tolist() == [False]
    assert static_call_sites(made._replace(original=made.code)).lawful().tolist() == [True]


@pytest.mark.parametrize(("condition", "lawful"), [(b"\x0f\x85", True), (b"\x0f\x84", False)])
def test_a_conditional_tail_call_of_nothing_leads_to_a_return_by_its_condition(condition: bytes, lawful: bool) -> None:  # noqa: FBT001 - a case
    made = conditional(rel(condition, AT, AWAY), 0, rel(b"\x0f\x85", AT, TRAMPOLINE))
    assert static_call_sites(made).lawful().tolist() == [lawful]
