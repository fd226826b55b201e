"""Return sites."""

from hypervigil.linux.text.returns import return_sites
from hypervigil.linux.text.thunks import Thunks
from tests.linux.text.world import DATA, TEXT, WILD, World, place, registers, rel, table, u64

THUNK, BUILT_IN = TEXT + 0x800, TEXT + 0x900


def test_a_return_is_plain_or_goes_through_a_thunk() -> None:
    world = World()
    at = [TEXT + 0x10 * index for index in range(6)]
    world.put(at[0], b"\xc3\xcc\xcc\xcc\xcc")
    world.put(at[1], rel(b"\xe9", at[1], THUNK))
    world.put(at[2], rel(b"\xe9", at[2], BUILT_IN))
    world.put(at[3], rel(b"\xe9", at[3], WILD))
    world.put(at[4], rel(b"\xe8", at[4], THUNK))
    world.put(at[5], b"\xc3\xcc\xcc\xcc\x90")
    made = place(world, {".return_sites": table(DATA, *at)}, thunks=Thunks((THUNK, BUILT_IN), u64(), registers()))
    sites = return_sites(made)
    assert sites.lawful().tolist() == [True, True, True, False, False, False]
    assert sites.expected(3) == (rel(b"\xe9", at[3], THUNK), b"\xc3\xcc\xcc\xcc\xcc")


def test_a_kernel_without_thunks_returns_plainly() -> None:
    world = World()
    world.put(TEXT, b"\xc3\xcc\xcc\xcc\xcc")
    sites = return_sites(place(world, {".return_sites": table(DATA, TEXT)}))
    assert (sites.lawful().tolist(), sites.expected(0)) == ([True], (b"\xc3\xcc\xcc\xcc\xcc",))


def test_what_was_built_is_a_jump_to_the_thunk_that_is_built_in() -> None:
    world = World()
    world.put(TEXT, rel(b"\xe9", TEXT, BUILT_IN))
    world.put(TEXT + 0x10, rel(b"\xe9", TEXT + 0x10, TEXT + 0x700))
    made = place(
        world,
        {".return_sites": table(DATA, TEXT, TEXT + 0x10)},
        thunks=Thunks((THUNK, BUILT_IN), u64(), registers()),
        original=rel(b"\xe9", TEXT, BUILT_IN).ljust(16, b"\xcc") + rel(b"\xe9", TEXT + 0x10, BUILT_IN),
    )
    assert return_sites(made).lawful().tolist() == [True, False]
