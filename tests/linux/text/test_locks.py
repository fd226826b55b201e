"""Lock prefixes."""

from hypervigil.linux.text.locks import lock_sites
from tests.linux.text.world import DATA, TEXT, World, place, table


def test_a_prefix_is_lock_or_ds_perhaps_behind_an_operand_size() -> None:
    world = World()
    values = (b"\xf0\x0f", b"\x3e\x0f", b"\x66\xf0", b"\x66\x3e", b"\x90\xf0", b"\x66\x90")
    places = [TEXT + 0x10 * index for index in range(len(values))]
    for at, value in zip(places, values, strict=True):
        world.put(at, value)
    sites = lock_sites(place(world, {".smp_locks": table(DATA, *places)}))
    assert sites.lawful().tolist() == [True, True, True, True, False, False]
    assert sites.expected(4) == (b"\xf0", b"\x3e")
