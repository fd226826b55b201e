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
}


@pytest.mark.parametrize("what", [*LAWFUL, *FOREIGN])
def test_an_indirect_branch_goes_through_a_thunk_or_a_register(what: str) -> None:
    world = World()
    world.put(AT, LAWFUL.get(what) or FOREIGN[what])
    made = place(world, {".retpoline_sites": table(DATA, AT)}, thunks=Thunks((), u64(THUNK), registers(0)))
    assert retpoline_sites(made).lawful().tolist() == [what in LAWFUL]
