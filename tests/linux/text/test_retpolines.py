"""Indirect branches."""

import pytest

from hypervigil.linux.text.retpolines import retpoline_sites
from hypervigil.linux.text.thunks import Thunks
from tests.linux.text.world import DATA, TEXT, WILD, World, place, registers, rel, table, u64

AT, THUNK = TEXT + 0x40, TEXT + 0x800
LAWFUL = {
    "call of a thunk": rel(b"\xe8", AT, THUNK),
    "jump to a thunk": rel(b"\xe9", AT, THUNK),
    "call of a thunk with a prefix": rel(b"\x2e\xe8", AT, THUNK),
    "conditional jump to a thunk": rel(b"\x0f\x84", AT, THUNK),
    "call through a register": b"\xff\xd0\x0f\x1f\x00",
    "call through a register above": b"\x41\xff\xd3\x66\x90",
    "jump through a register": b"\xff\xe2\xcc\x66\x90",
    "fence before a call": b"\x0f\xae\xe8\xff\xd0",
    "fence before a call above": b"\x0f\xae\xe8\x41\xff\xd3",
    "call filled up with prefixes": b"\x2e\x2e\x2e\xff\xd0",
    "call in six bytes": b"\x41\xff\xd5\x0f\x1f\x00",
    "jump in six bytes": b"\x41\xff\xe1\xcc\x66\x90",
    "jump around a jump": b"\x75\x04\x41\xff\xe3\xcc",
}
FOREIGN = {
    "call of foreign code": rel(b"\xe8", AT, WILD),
    "call into a thunk": rel(b"\xe8", AT, THUNK + 1),
    "call of foreign code with a prefix": rel(b"\x2e\xe8", AT, WILD),
    "conditional jump to foreign code": rel(b"\x0f\x84", AT, WILD),
    "call through memory": b"\xff\x10\x0f\x1f\x00",
    "nop": b"\x0f\x1f\x44\x00\x00",
    "far jump over": b"\x75\x40\x41\xff\xe3\xcc",
    "more behind a call": b"\xff\xd0\x48\x31\xc0",
}


@pytest.mark.parametrize("what", [*LAWFUL, *FOREIGN])
def test_an_indirect_branch_goes_through_a_thunk_or_a_register(what: str) -> None:
    world = World()
    world.put(AT, LAWFUL.get(what) or FOREIGN[what])
    made = place(world, {".retpoline_sites": table(DATA, AT)}, thunks=Thunks((), u64(THUNK), registers(0)))
    assert retpoline_sites(made).lawful().tolist() == [what in LAWFUL]


OTHER = THUNK + 0x20
CASES = {
    "as built": (rel(b"\xe8", AT, THUNK), rel(b"\xe8", AT, THUNK), True),
    "another register's thunk": (rel(b"\xe8", AT, OTHER), rel(b"\xe8", AT, THUNK), False),
    "a jump where a call was": (rel(b"\xe9", AT, THUNK), rel(b"\xe8", AT, THUNK), False),
    "plain": (b"\xff\xd0\x0f\x1f\x00", rel(b"\xe8", AT, THUNK), True),
    "plain of another register": (b"\xff\xd1\x0f\x1f\x00", rel(b"\xe8", AT, THUNK), False),
    "plain jump where a call was": (b"\xff\xe0\xcc\x66\x90", rel(b"\xe8", AT, THUNK), False),
    "more behind it": (b"\xff\xd0\x48\x31\xc0", rel(b"\xe8", AT, THUNK), False),
    "prefixed, plain": (b"\x2e\x2e\x2e\x2e\xff\xd0", rel(b"\x2e\xe8", AT, THUNK), True),
    "prefixed, more behind it": (b"\xff\xd0\x66\x90\x31\xc0", rel(b"\x2e\xe8", AT, THUNK), False),
    "conditional": (b"\x75\x04\xff\xe0\xcc\x90", rel(b"\x0f\x84", AT, THUNK), True),
    "conditional by the same": (b"\x74\x04\xff\xe0\xcc\x90", rel(b"\x0f\x84", AT, THUNK), False),
    "conditional, too far": (b"\x75\x03\xff\xe0\xcc\x90", rel(b"\x0f\x84", AT, THUNK), False),
    "no condition any more": (b"\xff\xe0\xcc\x66\x90\x90", rel(b"\x0f\x84", AT, THUNK), False),
    "a condition that was none": (b"\x75\x03\xff\xd0\x90", rel(b"\xe8", AT, THUNK), False),
}


@pytest.mark.parametrize("what", CASES)
def test_where_it_is_known_what_was_built_only_that_branch_may_stand_there(what: str) -> None:
    site, original, lawful = CASES[what]
    world = World()
    world.put(AT, site)
    made = place(
        world,
        {".retpoline_sites": table(DATA, AT)},
        thunks=Thunks((), u64(THUNK, OTHER), registers(0, 1)),
        original=b"\xcc" * (AT - TEXT) + original,
    )
    sites = retpoline_sites(made)
    assert sites.lawful().tolist() == [lawful]
    assert sites.size.tolist() == [len(original)]
    assert sites.expected(0) == (original,)
