"""Objects that are taken off the kernel's lists but live on: modules, virtual machines, tracers."""

import struct

from hypervigil.core.errors import MissingMemory, UsageError
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.machine import Machine
from hypervigil.lab.plant.change import Write, pointer, put_all
from hypervigil.lab.plant.heap import on_list
from hypervigil.lab.plant.pointers import table_slot
from hypervigil.lab.plant.text import ftrace_entry
from hypervigil.lab.plant.tree import without_module
from hypervigil.lab.truth import Planted

_LIST_IN_MODULE = 8
_STRUCT_KVM = 0x2800


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
    values = {"machine": int(_machine_of(machine, entry))}
    return Planted(put_all(machine, unlink(machine, "kvm.vm_list", entry)), values=values)


def _machine_of(machine: Machine, entry: VirtAddr) -> VirtAddr:
    """The struct kvm whose `vm_list` is at `entry`.

    Modules have BTF since 36e68442d1af "bpf: Load and verify kernel module BTFs" (5.11). Before that the structure
    has an area of vmalloc space of its own (sev_vm_init and svm_vm_alloc, arch/x86/kvm/svm), where it comes first.
    """
    try:
        return VirtAddr(entry - machine.btf("kvm").member("kvm", "vm_list").offset)
    except UsageError:
        return VirtAddr(entry - len(mapped_before(machine, entry)))


def mapped_before(machine: Machine, end: VirtAddr) -> bytes:
    """What is mapped before an address, as far back as a struct kvm can begin."""
    start = VirtAddr(end & ~(PAGE_SIZE - 1))
    content = machine.memory.read(start, end - start)
    while end - start < _STRUCT_KVM:
        start = VirtAddr(start - PAGE_SIZE)
        try:
            content = machine.memory.read(start, PAGE_SIZE) + content
        except MissingMemory:
            break
    return content


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
    values: dict[str, int] = {"ops": first, "site": ftrace_entry(machine, [traced])[1]}
    return Planted(put_all(machine, [pointer("ftrace_ops_list", head, following)]), values=values)


def module_hook(machine: Machine, *, name: str, table: list[str], function: list[str]) -> Planted:
    """Leads a table's slot into a module's own code, and hides that module everywhere."""
    hook = table_slot(machine, table=table, function=function, where=name)
    hidden = module(machine, name=name, everywhere=True)
    return Planted((hook.changes[0], *hidden.changes, hook.changes[1]), hook.stub, {**hook.values, **hidden.values})
