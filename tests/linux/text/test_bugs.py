"""BUG and WARN."""

from hypervigil.linux.text.bugs import bug_sites
from hypervigil.linux.text.sites import Table
from tests.linux.text.world import DATA, TEXT, World, place


def entry(index: int, at: int, flags: int) -> bytes:
    distance = at - DATA - 12 * index
    return distance.to_bytes(4, "little", signed=True) + bytes(6) + flags.to_bytes(2, "little")


def test_bugs_trap() -> None:
    world = World()
    world.struct("bug_entry", ("bug_addr_disp", 0, 4), ("flags", 10, 2))
    values = (b"\x0f\x0b", b"\x67\x48\x0f\xb9\x3a", b"\x90\x90")
    for index, value in enumerate(values):
        world.put(TEXT + 0x10 * index, value)
    rows = [entry(index, TEXT + 0x10 * index, 1) for index in range(3)]
    sites = bug_sites(place(world, {"__bug_table": Table(DATA, b"".join(rows))}))
    assert sites.lawful().tolist() == [True, True, False]
    assert sites.expected(2) == (b"\x0f\x0b",)


def test_one_with_arguments_traps_elsewhere() -> None:
    world = World()
    world.put(TEXT, b"\x90\x90")
    sites = bug_sites(place(world, {"__bug_table": Table(DATA, entry(0, TEXT, 0x11))}))
    assert len(sites.address) == 0
