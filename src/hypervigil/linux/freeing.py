"""Executable memory that is just being given back: for moments no list knows whose it is.

- ``free_module`` takes a module off every list, waits for readers, and only then frees its memory; meanwhile the
  module is unformed (kernel/module/main.c).
- ``do_free_init`` frees what modules needed while they were initialized, likewise after it has waited:
  ``struct mod_initfree``, a chain, whose members changed with the module's memory (ac3b43283923 "module: replace
  module_layout with module_memory", 6.4).

The only witness is the thread that waits: its stack holds the way back into that function, and where the memory is.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hypervigil.core.errors import EvidenceError
from hypervigil.core.units import VirtAddr
from hypervigil.linux.executable import Claim
from hypervigil.linux.members import number
from hypervigil.linux.modules import Module, read_module
from hypervigil.linux.system import System
from hypervigil.linux.tasks import Task
from hypervigil.linux.text.code import distinct
from hypervigil.linux.vmap import VmapArea

FREED = "freed"
"""The kind of such claims."""

U64 = npt.NDArray[np.uint64]

_STACK = 1 << 14
_WORD = 8
_MOST_TASKS = 1 << 16
_MOST_CHAINED = 64
_KERNEL_HALF = np.uint64(1 << 63)
_LIVE = "live"
_INIT_TEXT = ("init_text", "module_init")


class _Waiting(NamedTuple):
    """A thread that waits inside of one of the functions, and the distinct pointers on its stack."""

    task: Task
    pointers: U64


def memory_being_freed(system: System, tasks: Iterable[Task], areas: tuple[VmapArea, ...]) -> Iterator[Claim]:
    """Memory of modules that a thread is about to free, as its stack shows.

    Args:
        system: the kernel with its modules.
        tasks: its threads; of more than 65,536 the others are not looked at.
        areas: the live areas of vmalloc space.
    """
    starts = {area.start: area.end for area in areas}
    for waiting in _each_waiting(system, tasks, "free_module"):
        for module in _each_module(system, waiting.pointers):
            what = f"module {module.name}, which process {waiting.task.name} is unloading"
            yield from (Claim(a.start, a.end, what, FREED) for a in module.areas)
    for waiting in _each_waiting(system, tasks, "do_free_init"):
        what = f"init text of a module, which process {waiting.task.name} is freeing"
        for start in _each_init(system, waiting.pointers):
            if start in starts:
                yield Claim(start, starts[start], what, FREED)


def _each_waiting(system: System, tasks: Iterable[Task], function: str) -> Iterator[_Waiting]:
    try:
        start = system.kernel.symbols.find(function)
        end = None if start is None else system.kernel.symbols.end_of(function)
    except EvidenceError:
        return
    if start is None or end is None:
        return
    for task, _ in zip(tasks, range(_MOST_TASKS), strict=False):
        words = _stack(system, task)
        if ((words > np.uint64(start)) & (words < np.uint64(end))).any():
            yield _Waiting(task, distinct(words[(words >= _KERNEL_HALF) & (words % np.uint64(_WORD) == 0)]))


def _stack(system: System, task: Task) -> U64:
    """The words of a thread's stack from where it stopped; none where that cannot be read."""
    try:
        thing = system.kernel.object("struct task_struct", task.address)
        stack, pointer = number(thing, "stack"), number(thing, "thread.sp")
        if not stack <= pointer < stack + _STACK or pointer % _WORD:
            return np.array([], np.uint64)
        data = system.kernel.space.read(VirtAddr(pointer), stack + _STACK - pointer, zero_ok=True)
    except EvidenceError:
        return np.array([], np.uint64)
    return np.frombuffer(data, "<u8").astype(np.uint64)


def _each_module(system: System, pointers: U64) -> Iterator[Module]:
    """Modules that are unformed and whose structure lies in their own memory."""
    for address in pointers.tolist():
        try:
            module = read_module(system.kernel, address)
        except EvidenceError:
            continue
        if module.state != _LIVE and any(area.start <= address < area.end for area in module.areas):
            yield module


def _each_init(system: System, pointers: U64) -> Iterator[int]:
    """Where the init text of every ``struct mod_initfree`` begins that a chain from one of the pointers leads to."""
    seen: set[int] = set()
    waiting = pointers.tolist()
    while waiting and len(seen) < len(pointers) + _MOST_CHAINED:
        address = waiting.pop()
        if not address or address in seen:
            continue
        seen.add(address)
        try:
            thing = system.kernel.object("struct mod_initfree", address)
            start, following = number(thing, *_INIT_TEXT), number(thing, "node.next")
        except EvidenceError:
            continue
        if start:
            yield start
            waiting.append(following)
