"""Sealed landing pads."""

from hypervigil.linux.text.endbr import endbr_sites
from tests.linux.text.world import DATA, TEXT, World, place, table


def test_a_landing_pad_is_one_or_sealed() -> None:
    world = World()
    values = (b"\xf3\x0f\x1e\xfa", b"\x66\x0f\x1f\x00", b"\x0f\x1f\x40\xd6", b"\xe9\x00\x00\x00")
    places = [TEXT + 0x10 * index for index in range(len(values))]
    for at, value in zip(places, values, strict=True):
        world.put(at, value)
    sites = endbr_sites(place(world, {".ibt_endbr_seal": table(DATA, *places)}))
    assert sites.lawful().tolist() == [True, True, True, False]
    assert b"\xf3\x0f\x1e\xfa" in sites.expected(3)
