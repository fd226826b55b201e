"""Objects that are taken off the kernel's lists but live on: modules, tasks, virtual machines."""

import struct
import time

from hypervigil.core.errors import UsageError
from hypervigil.core.units import VirtAddr
from hypervigil.lab.btf import Btf
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.machine import Machine
from hypervigil.lab.plant.change import Write, pointer, put_all
from hypervigil.lab.plant.heap import each_heap_match, on_list
from hypervigil.lab.plant.tree import without_module
from hypervigil.lab.truth import Planted

_LIST_IN_MODULE = 8
_COMM = 16
_PID_TYPES = 2


def unlink(machine: Machine, name: str, entry: VirtAddr) -> list[Write]:
    """What list_del_init does to `entry` (include/linux/list.h), as writes.

    Raises:
        UsageError: the neighbours do not point back, so it is no list.
    """
    following, previous = struct.unpack("<QQ", machine.memory.read(entry, 16))
    if not on_list(machine, entry):
        raise UsageError(f"{name} at {entry:#x} is not on a list")
    return [
        pointer(f"next of the one before {name}", previous, following),
        pointer(f"prev of the one after {name}", VirtAddr(following + 8), previous),
        pointer(f"{name}.next", entry, entry),
        pointer(f"{name}.prev", VirtAddr(entry + 8), entry),
    ]


def vm(machine: Machine) -> Planted:
    """Takes the newest virtual machine off `vm_list`; it runs on."""
    head = machine.symbols.find("vm_list").address
    entry = machine.memory.pointer(head)
    if entry == head:
        raise NotApplicable("no virtual machine runs")
    return Planted(put_all(machine, unlink(machine, "kvm.vm_list", entry)), values={"entry": entry, "head": head})


def module(machine: Machine, *, name: str, everywhere: bool = False) -> Planted:
    """Takes a module off the `modules` list, and off module_kset and mod_tree too if `everywhere`.

    Source: kernel/module/main.c, `struct module` begins with its state and its list entry; lib/kobject.c,
    `struct kobject` has name, entry, parent, kset.
    """
    this = machine.symbols.find("__this_module", module=name).address
    values = {"module": int(this), "head": int(machine.symbols.find("modules").address)}
    writes = unlink(machine, "module.list", VirtAddr(this + _LIST_IN_MODULE))
    if everywhere:
        entry = machine.btf().member("module", "mkobj.kobj.entry").offset
        writes += unlink(machine, "module.mkobj.kobj.entry", VirtAddr(this + entry))
        writes += without_module(machine, this)
    changes = put_all(machine, writes)
    if name in machine.sh("cut -d' ' -f1 /proc/modules").text.split():
        raise UsageError(f"{name} is still in /proc/modules")
    return Planted(changes, values=values)


def ftrace_ops(machine: Machine, *, traced: str) -> Planted:
    """Takes the first of `ftrace_ops_list` off it; the sites that call it stay as they are.

    What is left to see is the site in `traced` (`values` has it as "site"): it calls a tracer that nobody registered.

    Source: include/linux/ftrace.h, `struct ftrace_ops` begins with its function and the next ops.
    """
    head = machine.symbols.find("ftrace_ops_list").address
    first = machine.memory.pointer(head)
    if first == machine.symbols.find("ftrace_list_end").address:
        raise NotApplicable("no ftrace ops is registered")
    following = machine.memory.pointer(VirtAddr(first + 8))
    values: dict[str, int] = {"ops": first, "site": machine.symbols.find(traced).address}
    return Planted(put_all(machine, [pointer("ftrace_ops_list", head, following)]), values=values)


def task(machine: Machine, *, pid_table: bool = False) -> Planted:
    """Starts a process and takes it off the task list, and off the pid table too if `pid_table`.

    The task is found by its random name; offsets come from the host's BTF.
    """
    comm = f"lab{time.monotonic_ns() % 10**9:09d}"
    pid = int(machine.sh(f"idle {comm}").text)
    time.sleep(0.5)
    btf = machine.btf()
    this = _by_comm(machine, comm, pid, btf)
    writes = unlink(machine, "task_struct.tasks", VirtAddr(this + btf.member("task_struct", "tasks").offset))
    if pid_table:
        struct_pid = machine.memory.pointer(VirtAddr(this + btf.member("task_struct", "thread_pid").offset))
        heads = VirtAddr(struct_pid + btf.member("pid", "tasks").offset)
        writes += [pointer(f"pid.tasks[{i}].first", VirtAddr(heads + 8 * i), 0) for i in range(_PID_TYPES)]
    changes = put_all(machine, writes)
    _still_counts(machine, comm)
    return Planted(changes, values={"task": this, "pid": pid})


def _by_comm(machine: Machine, comm: str, pid: int, btf: Btf) -> VirtAddr:
    name_at, pid_at = btf.member("task_struct", "comm").offset, btf.member("task_struct", "pid").offset
    for address in each_heap_match(machine, comm.encode().ljust(_COMM, b"\0")):
        this = VirtAddr(address - name_at)
        if machine.memory.read(VirtAddr(this + pid_at), 4) == struct.pack("<i", pid):
            return this
    raise UsageError(f"no task named {comm} is in RAM")


def _still_counts(machine: Machine, comm: str) -> None:
    before = machine.sh(f"cat /run/idle/{comm}").text
    time.sleep(0.5)
    if machine.sh(f"cat /run/idle/{comm}").text == before:
        raise UsageError("the hidden task no longer runs")
