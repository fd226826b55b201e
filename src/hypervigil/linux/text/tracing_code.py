"""The kernel's own tracing code, whose calls ftrace redirects (arch/x86/kernel/ftrace_64.S, ftrace.c).

``ftrace_call`` and ``ftrace_regs_call`` stand in the trampolines that all tracers share. ftrace_update_ftrace_func
makes them call the only tracer or the function that calls all; ``ftrace_graph_call``, until 5.14, jumps on to the
function graph tracer while it is on. Where calls are counted, they go by the code that counts them.
"""

import numpy as np

from hypervigil.linux.text.code import among, branch_targets
from hypervigil.linux.text.ftrace import is_sound
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import CALL, JMP, Sites, branch, sizes
from hypervigil.linux.text.thunks import counted

_LABELS = ("ftrace_call", "ftrace_regs_call", "ftrace_graph_call")
_TARGETS = (
    *("ftrace_stub", "ftrace_ops_list_func", "arch_ftrace_ops_list_func", "ftrace_ops_assist_func"),
    "ftrace_graph_caller",
)
_SITE = 5


def tracing_code_sites(place: Place) -> Sites:
    """Every such branch must lead to what calls tracers, or to a registered one."""
    labels = [at for name in _LABELS if (at := place.symbols.find(name)) is not None]
    address = np.array(sorted(labels), np.uint64)
    address = address[place.code.holds(address, _SITE)]
    rows = place.code.rows(address, _SITE)
    known = [found for name in _TARGETS if (found := place.symbol(name)) is not None]
    tracers = place.registry.tracers
    known += [tracer.function for tracer in tracers.registered if is_sound(place.system, tracer)]
    target = branch_targets(address, rows, 1)
    leads = among(target, np.array(sorted(known), np.uint64)) | (not tracers.complete)
    for function in known:
        leads |= counted(place.system.kernel.space, target, np.full(len(target), function, np.uint64))
    lawful = leads & ((rows[:, 0] == CALL) | (rows[:, 0] == JMP))

    def expected(row: int) -> tuple[bytes, ...]:
        return tuple(branch(int(rows[row, 0]), int(address[row]), one) for one in known[:1])

    return Sites(
        kind="tracing code",
        address=address,
        size=sizes(len(address), _SITE),
        states=(("to tracers", lawful),),
        legal="a branch to the function that calls tracers, or to a registered one",
        expected=expected,
    )
