"""Where the kernel goes on after expected faults."""

from hypervigil.linux.text.exceptions import exception_sites
from hypervigil.linux.text.sites import Table
from tests.linux.text.world import DATA, MODULE, TEXT, WILD, World, place


def entry(index: int, faults: int, goes_on: int) -> bytes:
    at = DATA + 12 * index
    return b"".join(
        (to - here).to_bytes(4, "little", signed=True) for here, to in ((at, faults), (at + 4, goes_on))
    ) + bytes(4)


def test_it_goes_on_in_the_same_text() -> None:
    rows = [entry(0, TEXT, TEXT + 9), entry(1, TEXT, WILD), entry(2, TEXT, MODULE), entry(3, MODULE, WILD)]
    sites = exception_sites(place(World(), {"__ex_table": Table(DATA, b"".join(rows))}))
    assert sites.lawful().tolist() == [True, False, False]
    assert sites.address.tolist() == [DATA + 4, DATA + 16, DATA + 28]
