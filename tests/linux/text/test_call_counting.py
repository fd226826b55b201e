"""Calls that are counted."""

import pytest

from hypervigil.linux.text.call_counting import counted_calls, counting_code
from tests.linux.text.world import DATA, TEXT, WILD, World, place, rel, table

AT, FUNCTION, OTHER = TEXT + 0x40, TEXT + 0x200, TEXT + 0x300
COUNTING = b"\x65\x48\xc1\x3d\x01\x02\x03\x04\x05"
BUILT = b"\xcc" * (AT - TEXT) + rel(b"\xe8", AT, FUNCTION)


def world(site: bytes, before: bytes = COUNTING) -> World:
    made = World()
    made.put(AT, site)
    made.put(FUNCTION - len(before), before)
    made.symbol("callee", FUNCTION)
    return made


@pytest.mark.parametrize(
    ("target", "before", "state"),
    [
        (FUNCTION, COUNTING, "as built"),
        (FUNCTION - 9, COUNTING, "counted"),
        (FUNCTION - 9, b"\x90" * 9, "counted"),
        (FUNCTION - 9, COUNTING[:-1] + b"\x06", ""),
        (FUNCTION - 8, COUNTING, ""),
        (OTHER, COUNTING, ""),
        (WILD, COUNTING, ""),
    ],
)
def test_a_call_leads_where_it_was_built_to_or_to_what_counts_it(target: int, before: bytes, state: str) -> None:
    made = place(world(rel(b"\xe8", AT, target), before), {".call_sites": table(DATA, AT)}, original=BUILT)
    sites = counted_calls(made)
    assert {name for name, mask in sites.states if mask.any()} == ({state} if state else set())
    assert sites.expected(0) == (rel(b"\xe8", AT, FUNCTION),)


def test_what_is_no_call_is_for_others_to_judge() -> None:
    made = place(world(b"\x0f\x1f\x44\0\0"), {".call_sites": table(DATA, AT)}, original=BUILT)
    assert len(counted_calls(made).address) == 0


def test_without_a_package_every_call_is_as_built() -> None:
    made = place(world(rel(b"\xe8", AT, WILD)), {".call_sites": table(DATA, AT)})
    assert counted_calls(made).lawful().tolist() == [True]


@pytest.mark.parametrize("code", [COUNTING, b"\x65\x48\xc1\x3c\x25\x01\x02\x03\x04\x05"])
def test_code_that_counts_may_stand_in_padding_before_a_function(code: bytes) -> None:
    padded = b"\x90" * 0x200
    made = place(world(b"", code), original=padded)
    sites = counting_code(made)
    assert (sites.address.tolist(), sites.size.tolist()) == ([FUNCTION - len(code)], [len(code)])
    assert sites.lawful().tolist() == [True]
    assert sites.expected(0) == (b"\x90" * len(code),)
    made = place(world(b"", code), original=padded[:-1] + b"\xc3")
    assert counting_code(made).lawful().tolist() == [False]


def test_without_a_package_padding_is_not_judged_here() -> None:
    assert len(counting_code(place(world(b""))).address) == 0
