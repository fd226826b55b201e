"""Calls through pv_ops."""

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
