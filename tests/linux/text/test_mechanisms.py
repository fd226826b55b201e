"""All mechanisms together."""

from hypothesis import given, settings
from hypothesis import strategies as st

from hypervigil.core.facts import Gap
from hypervigil.linux.text.mechanisms import MECHANISMS, each_sites
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import Sites, Table
from tests.linux.text.world import DATA, TEXT, World, place

SECTIONS = tuple(sorted({section for section, _ in MECHANISMS if section}))


def kinds(made: Place) -> list[str]:
    return [sites.kind for sites in each_sites(made) if isinstance(sites, Sites)]


def test_a_mechanism_without_a_table_says_nothing() -> None:
    assert kinds(place(World())) == ["ftrace", "tracing code", "static call trampoline"]


def test_one_with_a_table_does() -> None:
    said = kinds(place(World(), {section: Table(DATA, b"") for section in SECTIONS}))
    assert len(set(said)) == len(MECHANISMS)


def test_one_whose_table_cannot_be_understood_is_a_gap() -> None:
    world = World()
    del world.types["bug_entry"]
    said = list(each_sites(place(world, {"__bug_table": Table(DATA, bytes(24))})))
    assert [one.what for one in said if isinstance(one, Gap)] == ["__bug_table of kernel"]


@settings(max_examples=60)
@given(st.sampled_from(SECTIONS), st.binary(max_size=96), st.sampled_from([DATA, TEXT, 0, (1 << 64) - 8]))
def test_any_bytes_are_tables(section: str, data: bytes, address: int) -> None:
    made = place(World(), {section: Table(address, data)})
    for sites in each_sites(made):
        assert isinstance(sites, Sites)
        lawful = sites.lawful()
        assert len(lawful) == len(sites.address) == len(sites.size)
        for row in range(len(lawful)):
            sites.expected(row)
