"""Sites of the function tracer."""

import pytest

from hypervigil.linux.text.ftrace import each_unsound, ftrace_sites, is_sound
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import NOP5
from hypervigil.linux.text.tracers import Tracer, Tracers
from tests.linux.text.world import DATA, MODULE, TEXT, WILD, World, place, rel, tracer, u64

AT, CALLER, FENTRY, FUNCTION = TEXT + 0x40, TEXT + 0x800, TEXT + 0x900, TEXT + 0xA00
ENABLED = 1 << 31 | 1
DIVERTS = 1 << 12


def world() -> World:
    made = World()
    for name, address in (
        ("ftrace_caller", CALLER),
        ("__fentry__", FENTRY),
        ("function_trace_call", FUNCTION),
        ("kprobe_ftrace_handler", FUNCTION + 0x40),
        ("vfs_read", AT),
        ("my_tracer", FUNCTION + 0x80),
    ):
        made.symbol(name, address)
    made.module("kvm", (MODULE, 0x100, "kvm_init"))
    return made


def built(site: bytes, flags: int, *registered: Tracer, direct: dict[int, int] | None = None) -> Place:
    made = world()
    made.put(AT, site)
    return place(made, tracers=Tracers(u64(AT), u64(flags), registered, direct or {}, ()))


@pytest.mark.parametrize("site", [*NOP5, rel(b"\xe8", AT, FENTRY)])
def test_a_site_without_users_is_a_nop_or_as_built(site: bytes) -> None:
    assert ftrace_sites(built(site, 0)).lawful().tolist() == [True]


@pytest.mark.parametrize(
    ("what", "site", "flags"),
    [
        ("a call that nobody enabled", rel(b"\xe8", AT, CALLER), 0),
        ("a call that counts no user", rel(b"\xe8", AT, CALLER), 1 << 31),
        ("a nop though it is enabled", NOP5[0], ENABLED),
        ("a call of foreign code", rel(b"\xe8", AT, WILD), ENABLED),
        ("a jump to the shared trampoline", rel(b"\xe9", AT, CALLER), ENABLED),
        ("as built though it is enabled", rel(b"\xe8", AT, FENTRY), ENABLED),
    ],
)
def test_anything_else_is_not_lawful(what: str, site: bytes, flags: int) -> None:
    sites = ftrace_sites(built(site, flags, tracer(FUNCTION)))
    assert sites.lawful().tolist() == [False], what
    assert (sites.expected(0), dict(sites.owners)) == ((NOP5[0],), {})


def test_a_call_needs_somebody_registered_for_the_place() -> None:
    site = rel(b"\xe8", AT, CALLER)
    for users, lawful in (((), False), ((tracer(FUNCTION),), True), ((tracer(FUNCTION, wanted=u64(AT + 1)),), False)):
        assert ftrace_sites(built(site, ENABLED, *users)).lawful().tolist() == [lawful]


def test_a_trampoline_is_its_owners() -> None:
    site = rel(b"\xe8", AT, WILD)
    mine, other = (
        tracer(FUNCTION, trampoline=WILD, wanted=u64(AT)),
        tracer(FUNCTION, trampoline=WILD, wanted=u64(AT + 9)),
    )
    assert ftrace_sites(built(site, ENABLED, mine)).lawful().tolist() == [True]
    assert ftrace_sites(built(site, ENABLED, other)).lawful().tolist() == [False]


def test_a_function_may_be_called_or_jumped_to_directly() -> None:
    user = tracer(FUNCTION, direct=WILD)
    assert ftrace_sites(built(rel(b"\xe8", AT, WILD), ENABLED, user)).lawful().tolist() == [True]
    assert ftrace_sites(built(rel(b"\xe9", AT, WILD), ENABLED, user)).lawful().tolist() == [True]
    listed = built(rel(b"\xe8", AT, WILD), ENABLED, tracer(FUNCTION), direct={AT: WILD})
    assert ftrace_sites(listed).lawful().tolist() == [True]


@pytest.mark.parametrize(
    ("function", "owner"),
    [
        (FUNCTION, "function tracer"),
        (FUNCTION + 0x40, "kprobe vfs_read"),
        (FUNCTION + 0x80, "tracer my_tracer"),
        (MODULE, "tracer kvm_init [kvm]"),
    ],
)
def test_a_user_is_named(function: int, owner: str) -> None:
    sites = ftrace_sites(built(rel(b"\xe8", AT, CALLER), ENABLED, tracer(function)))
    assert dict(sites.owners) == {0: owner}


def test_a_live_patch_leads_to_a_function_and_is_named_by_its_module() -> None:
    for target, owner in ((MODULE, "livepatch kvm"), (MODULE + 1, None), (WILD, None)):
        made = world()
        made.symbol("klp_ftrace_handler", FUNCTION + 0xC0)
        made.struct("klp_ops", ("node", 0, 8), ("func_stack.next", 16, 8), ("fops", 32, 8))
        made.struct("klp_func", ("new_func", 8, 8), ("stack_node", 0x40, 8))
        one = tracer(FUNCTION + 0xC0)
        made.number(one.address - 16, DATA + 0xA40)
        made.number(DATA + 0xA08, target)
        made.put(AT, rel(b"\xe8", AT, CALLER))
        sites = ftrace_sites(place(made, tracers=Tracers(u64(AT), u64(ENABLED), (one,), {}, ())))
        assert dict(sites.owners) == ({0: owner} if owner else {})
        assert sites.lawful().tolist() == [owner is not None]


def test_operations_that_could_not_be_read_are_given_the_benefit() -> None:
    made = world()
    made.put(AT, rel(b"\xe8", AT, CALLER))
    for target, lawful in ((CALLER, True), (WILD, False)):
        made.put(AT, rel(b"\xe8", AT, target))
        unread = Tracers(u64(AT), u64(ENABLED), (), {}, (), complete=False)
        assert ftrace_sites(place(made, tracers=unread)).lawful().tolist() == [lawful]


def test_only_the_kernel_diverts_functions() -> None:
    system = world().system()
    btf_says_nothing = 1
    sound = [tracer(FUNCTION), tracer(FUNCTION, flags=DIVERTS), tracer(MODULE, flags=0)]
    odd = [
        tracer(MODULE, flags=btf_says_nothing),
        tracer(WILD),
        tracer(FUNCTION + 1),
        tracer(DATA),
        tracer(FUNCTION, direct=MODULE),
    ]
    assert [is_sound(system, one) for one in sound] == [True, True, True]
    assert list(each_unsound(system, (*sound, *odd))) == odd
