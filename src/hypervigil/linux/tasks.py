"""Processes and threads, through structures that do not depend on each other.

``struct task_struct`` (include/linux/sched.h). Threads hang on ``signal->thread_head``: ``thread_group`` is gone since
8e1f385104ac "kill task_struct->thread_group" (6.7).
"""

from functools import partial

import msgspec

from hypervigil.core.errors import EvidenceError, MissingMemory
from hypervigil.core.facts import Gap, Observed
from hypervigil.core.units import VirtAddr
from hypervigil.linux.lists import MAX_ENTRIES, walk_list
from hypervigil.linux.members import address_of, number, offset_of, text
from hypervigil.linux.percpu import each_cpu_offset, per_cpu
from hypervigil.linux.xarray import xarray_entries
from hypervigil.memory.kernel import Kernel

_POINTER = 8
_MAX_TASKS = MAX_ENTRIES


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A thread.

    Attributes:
        address: virtual address of its ``struct task_struct``.
        pid: its id; `tgid` is its process's.
        comm: the name it gave itself.
        leader: whether it is its process's first thread.
        exiting: it has begun to exit, so that lists may lack it.
        mm: address of its ``struct mm_struct``; 0 for a kernel thread.
    """

    address: int
    pid: int
    tgid: int
    comm: str
    leader: bool
    exiting: bool
    mm: int

    @property
    def name(self) -> str:
        """``pid (comm)``."""
        return f"{self.pid} ({self.comm})"


def read_task(kernel: Kernel, address: int) -> Task:
    """Read one ``struct task_struct``.

    Raises:
        MissingMemory: it is not in the image.
        MissingDescription: its type is not known.
    """
    thing = kernel.object("struct task_struct", address)
    pid, tgid = number(thing, "pid"), number(thing, "tgid")
    return Task(
        address=address,
        pid=pid,
        tgid=tgid,
        comm=text(thing, "comm"),
        leader=number(thing, "group_leader") == address,
        exiting=number(thing, "exit_state") != 0,
        mm=number(thing, "mm"),
    )


def listed_tasks(kernel: Kernel) -> Observed[int]:
    """Every thread of every process on the list that ps walks; the idle task at its head is not on it."""
    kind = kernel.type("struct task_struct")
    head = kernel.symbols.address("init_task") + offset_of(kind, "tasks")
    leaders = walk_list(kernel.space, head, offset_of(kind, "tasks"), "task list")
    node = offset_of(kind, "thread_node")
    found: dict[int, None] = dict.fromkeys(leaders.items)
    gaps = list(leaders.gaps)
    for leader in leaders.items:
        try:
            signal = number(kernel.object("struct task_struct", leader), "signal")
            threads = address_of(kernel.object("struct signal_struct", signal), "thread_head")
            walked = walk_list(kernel.space, threads, node, f"threads of {leader:#x}")
        except EvidenceError as fault:
            gaps.append(Gap(f"threads of {leader:#x}", str(fault)))
            continue
        gaps += walked.gaps
        found |= dict.fromkeys(walked.items)
    return Observed(tuple(found), tuple(gaps))


def tasks_by_pid(kernel: Kernel) -> Observed[int]:
    """Every thread in the table of process ids of the first namespace.

    It is an idr since 95846ecf9dac "pid: replace pid bitmap implementation with IDR API" (4.15).
    """
    namespace = kernel.variable("init_pid_ns", "struct pid_namespace")
    pids = xarray_entries(kernel, number(namespace, "idr.idr_rt.xa_head"), "process ids")
    kind = kernel.type("struct task_struct")
    first = offset_of(kernel.type("struct pid"), "tasks")
    link = offset_of(kind, "pid_links")
    found: list[int] = []
    gaps = list(pids.gaps)
    for pid in pids.items:
        try:
            node = kernel.space.u64(VirtAddr(pid + first))
        except MissingMemory as fault:
            gaps.append(Gap(f"process id at {pid:#x}", str(fault)))
            continue
        if node:
            found.append(node - link)
    return Observed(tuple(found), tuple(gaps))


def children(kernel: Kernel) -> Observed[int]:
    """Every process below the idle task, through the lists of children of each thread."""
    kind = kernel.type("struct task_struct")
    below, beside = offset_of(kind, "children"), offset_of(kind, "sibling")
    walk = partial(walk_list, kernel.space, offset=beside)
    found: dict[int, None] = {}
    gaps: list[Gap] = []
    waiting = [int(kernel.symbols.address("init_task")), *listed_tasks(kernel).items]
    asked: set[int] = set()
    while waiting and len(asked) < _MAX_TASKS:
        parent = waiting.pop()
        if parent in asked:
            continue
        asked.add(parent)
        walked = walk(head=parent + below, what=f"children of {parent:#x}")
        gaps += walked.gaps
        found |= dict.fromkeys(walked.items)
        waiting += walked.items
    return Observed(tuple(found), tuple(gaps))


class RunQueues(msgspec.Struct, frozen=True):
    """What the scheduler has: idle tasks, which stand on no list, and tasks that run or are ready to."""

    idle: frozenset[int]
    ready: Observed[int]


def run_queues(kernel: Kernel) -> RunQueues:
    """Tasks of every processor's ``struct rq``: its current one, its idle one, those of the fair class.

    Raises:
        MissingDescription: symbols or types are not known.
        MissingMemory: a queue is not in the image.
    """
    variable = kernel.symbols.address("runqueues")
    node = offset_of(kernel.type("struct task_struct"), "se.group_node")
    idle: set[int] = set()
    ready: dict[int, None] = {}
    gaps: list[Gap] = []
    for cpu, offset in each_cpu_offset(kernel):
        queue = kernel.object("struct rq", per_cpu(variable, offset))
        if not number(queue, "idle"):
            continue
        idle.add(number(queue, "idle"))
        ready[number(queue, "curr")] = None
        walked = walk_list(kernel.space, address_of(queue, "cfs_tasks"), node, f"fair tasks of processor {cpu}")
        gaps += walked.gaps
        ready |= dict.fromkeys(walked.items)
    return RunQueues(frozenset(idle), Observed(tuple(t for t in ready if t and t not in idle), tuple(gaps)))
