"""Calls through pv_ops."""

import pytest

from hypervigil.linux.text.paravirt import paravirt_sites
from hypervigil.linux.text.sites import Table
from tests.linux.text.world import DATA, TEXT, WILD, World, place, rel

AT, FUNCTION = TEXT + 0x40, TEXT + 0x900


def test_a_direct_call_leads_to_the_function_that_pv_ops_names() -> None:
    world = World()
    world.symbol("pv_ops", DATA + 0x100, "D")
    world.number(DATA + 0x118, FUNCTION)
    values = (rel(b"\xe8", AT, FUNCTION), rel(b"\xe8", AT + 0x10, WILD), b"\xfa\x0f\x1f\x40\x00", b"\xfa\x90")
    rows = b""
    for index, value in enumerate(values):
        world.put(AT + 0x10 * index, value)
        rows += (AT + 0x10 * index).to_bytes(8, "little") + bytes([3, len(value)]) + bytes(6)
    sites = paravirt_sites(place(world, {".parainstructions": Table(DATA, rows + bytes(16))}))
    assert sites.lawful().tolist() == [True, False, True, True]
    assert sites.expected(1) == (rel(b"\xe8", AT + 0x10, FUNCTION),)


def test_a_kernel_without_pv_ops_has_no_such_calls() -> None:
    row = AT.to_bytes(8, "little") + bytes([3, 5]) + bytes(6)
    assert len(paravirt_sites(place(World(), {".parainstructions": Table(DATA, row)})).address) == 0


def inline(found: bytes, name: str, *, original: bytes | None = None, function: int = FUNCTION) -> list[bool]:
    world = World()
    world.symbol("pv_ops", DATA + 0x100, "D")
    world.number(DATA + 0x118, function)
    world.symbol(name, FUNCTION)
    world.put(AT, found)
    row = AT.to_bytes(8, "little") + bytes([3, len(found)]) + bytes(6)
    built = b"\xcc" * (AT - TEXT) + (original or b"\xff\x14\x25\0\0\0\x81"[: len(found)])
    made = place(world, {".parainstructions": Table(DATA, row)}, original=built)
    lawful: list[bool] = paravirt_sites(made).lawful().tolist()
    return lawful


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (b"\xfa\x66\x0f\x1f\x44\0\0", "native_irq_disable"),
        (b"\xfb\x0f\x1f\x44\0\0", "pv_native_irq_enable"),
        (b"\x0f\x20\xd8\x0f\x1f\x40\0", "__native_read_cr3"),
        (b"\xc6\x07\0\x0f\x1f\0", "__raw_callee_save___native_queued_spin_unlock"),
        (b"\x0f\x1f\x44\0\0", "_paravirt_nop"),
        (rel(b"\xe8", AT, FUNCTION), "anything"),
    ],
)
def test_an_instruction_stands_for_its_function_only(found: bytes, name: str) -> None:
    assert inline(found, name) == [True]
    assert inline(found, "native_write_cr4") == [found[0] == 0xE8]


def test_what_was_built_may_stay_and_nothing_else_may_stand_there() -> None:
    pointer = b"\xff\x14\x25\x18\0\0\x81"
    assert inline(pointer, "native_write_cr4", original=pointer) == [True]
    assert inline(b"\xfa\x31\xc0\x90\x90", "native_irq_disable") == [False]
    assert inline(rel(b"\xe8", AT, WILD), "native_irq_disable") == [False]


def test_no_function_is_a_trap() -> None:
    assert inline(b"\x0f\x0b\x66\x90\x90", "x", function=0) == [True]
    assert inline(b"\x66\x90\x66\x90\x90", "paravirt_nop", function=0) == [False]
