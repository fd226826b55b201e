"""Processes that the kernel's own tables no longer show, but that still run.

Offsets come from the host's own BTF.
"""

import struct
import time

from hypervigil.core.errors import UsageError
from hypervigil.core.units import VirtAddr
from hypervigil.lab.machine import Machine
from hypervigil.lab.plant import lists
from hypervigil.lab.plant.change import Write, pointer, put_all
from hypervigil.lab.truth import Planted

_MOST_TASKS = 4096
_PID_TYPES = 2


def task_of(machine: Machine, pid: int) -> VirtAddr:
    """The task_struct of a process, from the task list.

    Raises:
        UsageError: no process on the list has that number.
    """
    btf = machine.btf()
    tasks, number = btf.member("task_struct", "tasks").offset, btf.member("task_struct", "pid").offset
    head = VirtAddr(machine.symbols.find("init_task").address + tasks)
    entry = machine.memory.pointer(head)
    for _ in range(_MOST_TASKS):
        if entry == head:
            break
        task = VirtAddr(entry - tasks)
        if machine.memory.read(VirtAddr(task + number), 4) == struct.pack("<i", pid):
            return task
        entry = machine.memory.pointer(entry)
    raise UsageError(f"the task list has no process {pid}")


def _off_list(machine: Machine, task: VirtAddr) -> list[Write]:
    entry = VirtAddr(task + machine.btf().member("task_struct", "tasks").offset)
    return lists.unlink(machine, "task_struct.tasks", entry)


def _off_pid_table(machine: Machine, task: VirtAddr) -> list[Write]:
    """Empties the lists by which a number leads to its task (include/linux/pid.h, PIDTYPE_PID and PIDTYPE_TGID)."""
    btf = machine.btf()
    struct_pid = machine.memory.pointer(VirtAddr(task + btf.member("task_struct", "thread_pid").offset))
    heads = VirtAddr(struct_pid + btf.member("pid", "tasks").offset)
    return [pointer(f"pid.tasks[{kind}].first", VirtAddr(heads + 8 * kind), 0) for kind in range(_PID_TYPES)]


def hidden(machine: Machine, *, pid_table: bool = False) -> Planted:
    """Starts a process and takes it off the task list, and off the pid table too if `pid_table`."""
    name = f"lab{time.monotonic_ns() % 10**9:09d}"
    pid = int(machine.text(f"idle {name}"))
    task = task_of(machine, pid)
    writes = _off_list(machine, task)
    if pid_table:
        writes += _off_pid_table(machine, task)
    changes = put_all(machine, writes)
    _check_counts(machine, name)
    return Planted(changes, values={"task": int(task), "pid": pid})


def _check_counts(machine: Machine, name: str) -> None:
    count = f"sleep 0.3; cat /run/idle/{name}"
    if machine.text(count) == machine.text(count):
        raise UsageError("the hidden task no longer runs")


def rogue_machine(machine: Machine) -> Planted:
    """Hides the newest virtual machine from `vm_list`, and the process that owns it."""
    entry = machine.memory.pointer(machine.symbols.find("vm_list").address)
    task, pid = _owner(machine, entry)
    changes = put_all(machine, _off_list(machine, task) + _off_pid_table(machine, task))
    unlisted = lists.vm(machine)
    return Planted((*unlisted.changes, *changes), values={**unlisted.values, "task": int(task), "pid": pid})


def _owner(machine: Machine, entry: VirtAddr) -> tuple[VirtAddr, int]:
    """The process whose memory map a virtual machine names: `kvm.mm` comes before `kvm.vm_list`."""
    before = lists.mapped_before(machine, entry)
    mm_at = machine.btf().member("task_struct", "mm").offset
    for word in machine.text("pidof nest").split():
        task = task_of(machine, int(word))
        if struct.pack("<Q", machine.memory.pointer(VirtAddr(task + mm_at))) in before:
            return task, int(word)
    raise UsageError("no process of the range owns the newest virtual machine")
