"""The kernel's own tracing code."""

import pytest

from hypervigil.linux.text.code import Code
from hypervigil.linux.text.sites import CALL, JMP
from hypervigil.linux.text.tracers import Tracers
from hypervigil.linux.text.tracing_code import tracing_code_sites
from tests.linux.text.world import MODULE, TEXT, WILD, World, place, rel, tracer, u64

AT, STUB, CALLER, OTHER = TEXT + 0x40, TEXT + 0x200, TEXT + 0x300, TEXT + 0x400
COUNTING = b"\x65\x48\xc1\x3d\x01\x02\x03\x04\x05"


def lawful(site: bytes, *, registered: int = 0, complete: bool = True, original: bytes | None = None) -> list[bool]:
    world = World()
    world.put(AT, site)
    world.put(STUB - 9, COUNTING)
    for name, address in (
        ("ftrace_call", AT),
        ("ftrace_stub", STUB),
        ("a_tracer", OTHER),
        ("arch_ftrace_ops_list_func", CALLER),
    ):
        world.symbol(name, address)
    world.module("rogue", (MODULE, 0x40, "rogue_trace"))
    world.struct("ftrace_ops", ("func", 0, 8))
    tracers = Tracers(u64(), u64(), (tracer(registered),) if registered else (), {}, (), complete=complete)
    made = place(world, tracers=tracers)
    if original is not None:
        made = made._replace(original=Code("kernel", TEXT, b"\xcc" * (AT - TEXT) + original))
    found: list[bool] = tracing_code_sites(made).lawful().tolist()
    return found


@pytest.mark.parametrize(
    ("opcode", "target", "registered", "expected"),
    [
        (CALL, STUB, 0, True),
        (CALL, CALLER, 0, True),
        (JMP, STUB, 0, True),
        (CALL, STUB - 9, 0, True),
        (CALL, STUB - 8, 0, False),
        (CALL, OTHER, OTHER, True),
        (CALL, OTHER, 0, False),
        (CALL, WILD, 0, False),
        (CALL, WILD, WILD, False),
        (0x0F, STUB, 0, False),
    ],
)
def test_a_branch_leads_to_what_calls_tracers_or_to_a_registered_one(
    opcode: int,
    target: int,
    registered: int,
    expected: bool,  # noqa: FBT001 - a case
) -> None:
    assert lawful(rel(bytes([opcode]), AT, target), registered=registered) == [expected]


def test_where_not_all_tracers_could_be_read_any_may_be_one() -> None:
    assert lawful(rel(b"\xe8", AT, OTHER), complete=False) == [True]


def test_what_was_built_is_a_call_of_the_stub() -> None:
    built = rel(b"\xe8", AT, STUB)
    assert lawful(built, original=built) == [True]
    assert lawful(rel(b"\xe8", AT, WILD), original=built) == [False]


def test_a_kernel_without_tracing_has_no_such_code() -> None:
    assert len(tracing_code_sites(place(World())).address) == 0
