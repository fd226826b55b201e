"""Sites of the function tracer: a nop, or a call of a tracer that is registered (kernel/trace/ftrace.c).

``struct dyn_ftrace`` counts the users of a site in its flags. An enabled site calls ``ftrace_caller``,
``ftrace_regs_caller`` or the trampoline of its only operation (79922b8009c0 "ftrace: Optimize function graph to be
called directly"), or a function directly (763e34e74bb7 "ftrace: Add register_ftrace_direct()", 5.5), since 7.0
also by a jump ("ftrace: Introduce FTRACE_OPS_FL_JMP").
"""

from collections.abc import Iterator

import numpy as np

from hypervigil.core.errors import EvidenceError
from hypervigil.facts.pointers import Section, Target
from hypervigil.linux.members import number, offset_of
from hypervigil.linux.system import KERNEL, System
from hypervigil.linux.text.code import U8, U64, Mask, branch_targets, is_any
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import CALL, JMP, NOP5, Sites, sizes
from hypervigil.linux.text.tracers import Tracer, diverts

SECTION = "__mcount_loc"

_SITE = 5
_ENABLED = np.uint64(1 << 31)
_USERS = np.uint64((1 << 19) - 1)
_LIVE_PATCH = "klp_ftrace_handler"
_CALLERS = ("ftrace_caller", "ftrace_regs_caller")
_KINDS = {
    "function_trace_call": "function tracer",
    "function_stack_trace_call": "function tracer",
    "function_no_repeats_trace_call": "function tracer",
    "function_stack_no_repeats_trace_call": "function tracer",
    "ftrace_graph_func": "function graph tracer",
    "ftrace_stub_graph": "function graph tracer",
    "stack_trace_call": "stack tracer",
    "ftrace_pid_func": "function tracer",
    "perf_ftrace_function_call": "perf",
    "profile_graph_entry": "function profiler",
    "function_profile_call": "function profiler",
    "kprobe_ftrace_handler": "kprobe",
    "klp_ftrace_handler": "livepatch",
    "fprobe_handler": "fprobe",
    "fprobe_ftrace_entry": "fprobe",
    "fprobe_kprobe_handler": "fprobe",
    "bpf_tramp_ftrace_ops_func": "BPF trampoline",
    "call_direct_funcs": "BPF trampoline",
}
"""What an operation is, by the function it calls; all are the kernel's own."""


def ftrace_sites(place: Place) -> Sites:
    """Every site must be a nop, or, while it has users, a call that leads to one of them."""
    code, tracers = place.code, place.registry.tracers
    low, high = np.searchsorted(tracers.places, np.array([code.start, code.end], np.uint64))
    address, flags = tracers.places[low:high], tracers.flags[low:high]
    kept = code.holds(address, _SITE)
    address, flags = address[kept], flags[kept]
    rows = code.rows(address, _SITE)
    nop = is_any(rows, *NOP5)
    enabled = (flags & _ENABLED != 0) & (flags & _USERS != 0)
    lawful, owners = _traced(place, address, rows, enabled)
    unconverted = (rows[:, 0] == CALL) & (branch_targets(address, rows, 1) == _fentry(place)) & ~enabled

    def expected(row: int) -> tuple[bytes, ...]:
        del row
        return (NOP5[0],)

    return Sites(
        kind="ftrace",
        address=address,
        size=sizes(len(address), _SITE),
        states=(("nop", nop & ~enabled), ("traced", lawful), ("as built", unconverted)),
        legal="a nop, or a call of a registered tracer while the site has users",
        expected=expected,
        owners=owners,
    )


def _fentry(place: Place) -> np.uint64:
    return np.uint64(place.symbol("__fentry__") or 0)


def _traced(place: Place, address: U64, rows: U8, enabled: Mask) -> tuple[Mask, dict[int, str]]:
    """Which enabled sites lead to somebody who is registered for them, and to whom."""
    lawful: Mask = np.zeros(len(address), np.bool_)
    owners: dict[int, str] = {}
    chosen = np.flatnonzero(enabled & ((rows[:, 0] == CALL) | (rows[:, 0] == JMP)))
    if not len(chosen):
        return lawful, owners
    sites = address[chosen]
    targets = branch_targets(sites, rows[chosen], 1).tolist()
    calls = (rows[chosen, 0] == CALL).tolist()
    shared = {place.system.kernel.symbols.find(name) for name in _CALLERS} - {None}
    users: list[list[Tracer]] = [[] for _ in sites]
    for tracer in place.registry.tracers.registered:
        if is_sound(place.system, tracer):
            for index in np.flatnonzero(tracer.traces(sites)).tolist():
                users[index].append(tracer)
    for index, (row, target) in enumerate(zip(chosen.tolist(), targets, strict=True)):
        common = target in shared and calls[index]
        direct = place.registry.tracers.direct.get(int(sites[index]), 0)
        if not place.registry.tracers.complete and _plausible(place, target, shared=common):
            lawful[row] = True
            continue
        leads = [user for user in users[index] if common or target in _own(user, direct)]
        if leads and (calls[index] or target in {direct, *(user.direct for user in leads)}):
            lawful[row] = True
            owners[row] = " and ".join(dict.fromkeys(tracer_owner(place, user, int(sites[index])) for user in leads))
    return lawful, owners


def _plausible(place: Place, target: int, *, shared: bool) -> bool:
    """Whether a call may be that of an operation that could not be read."""
    return shared or bool(place.registry.landing.made.hold(np.array([target], np.uint64))[0])


def _own(tracer: Tracer, direct: int) -> set[int]:
    return {tracer.trampoline, tracer.direct, direct} - {0}


def is_sound(system: System, tracer: Tracer) -> bool:
    """Whether an operation is one that a sound system may have.

    Its function begins exactly at a function of the kernel or of a module; only the kernel itself (live patches,
    kprobes, BPF) may divert functions, a live patch to a function only, and what is called directly is the kernel's or
    generated code. Where not all
    modules could be read, code of nobody may be one's.
    """
    function = system.target(tracer.function)
    if not function.owner and system.modules.gaps:
        return True
    if not _is_function(function):
        return False
    if function.owner != KERNEL and diverts(system.kernel, tracer):
        return False
    direct = system.owner_of(tracer.direct) if tracer.direct else None
    if direct is not None and direct.owner != KERNEL:
        return False
    patch = _live_patch(system, tracer) if function.symbol == _LIVE_PATCH else None
    return patch is None or _is_function(patch)


def _is_function(target: Target) -> bool:
    """Whether a pointer leads to exactly where something named begins in text; sections have symbols without a name."""
    return target.section is Section.TEXT and not target.offset and any((target.symbol, *target.aliases))


def _live_patch(system: System, tracer: Tracer) -> Target | None:
    """Where a live patch leads: the newest function on the stack of the ``struct klp_ops`` around an operation."""
    kernel = system.kernel
    try:
        patches = tracer.address - offset_of(kernel.type("struct klp_ops"), "fops")
        first = number(kernel.object("struct klp_ops", patches), "func_stack.next")
        patch = first - offset_of(kernel.type("struct klp_func"), "stack_node")
        return system.target(number(kernel.object("struct klp_func", patch), "new_func"))
    except EvidenceError:
        return None


def each_unsound(system: System, tracers: tuple[Tracer, ...]) -> Iterator[Tracer]:
    """The registered operations that no sound system has."""
    for tracer in tracers:
        if not is_sound(system, tracer):
            yield tracer


def tracer_owner(place: Place, tracer: Tracer, site: int) -> str:
    """Who an operation belongs to, in words."""
    target = place.system.target(tracer.function)
    names = (target.symbol, *target.aliases)
    kind = next((_KINDS[name] for name in names if name in _KINDS), "")
    if kind == "kprobe":
        return f"kprobe {place.system.name_of(site)}"
    if kind == "livepatch":
        patch = _live_patch(place.system, tracer)
        return kind if patch is None else f"{kind} {patch.owner}"
    if kind:
        return kind
    return f"tracer {target}"
