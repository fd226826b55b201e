"""Registries of callbacks and programs: one entry too many, or one that is missing."""

import re
import struct

from hypervigil.core.errors import UsageError
from hypervigil.core.units import VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.machine import Machine
from hypervigil.lab.plant.change import Write, pointer, put, put_all
from hypervigil.lab.plant.heap import each_heap_match, hold
from hypervigil.lab.plant.stub import answers_zero
from hypervigil.lab.truth import Planted

_FIRST = 0x7FFF_FFFF
_SLOTS = 64
_INTERNAL = 3
_BEFORE = 0x80


def notifier(machine: Machine, *, chain: str) -> Planted:
    """Puts a callback that answers NOTIFY_DONE before all others of an atomic notifier chain.

    Source: include/linux/notifier.h: `struct atomic_notifier_head` is a lock and, at 8, the head; `struct
    notifier_block` is call, next, priority.
    """
    head = VirtAddr(machine.symbols.find(chain).address + 8)
    stub = answers_zero(machine)
    block = hold(machine, 24)
    content = struct.pack("<QQi4x", stub.address, machine.memory.pointer(head), _FIRST)
    held = put(machine, "notifier_block", block, content)
    change = put_all(machine, [pointer(f"{chain}.head", head, block)])
    return Planted((*change, held, stub.change), stub.address, {"block": block})


def bpf_program(machine: Machine) -> Planted:
    """Loads BPF programs and takes the newest off the table of program numbers, `prog_idr`; it stays attached.

    Source: include/linux/idr.h, include/linux/xarray.h (`xa_head`; an internal node is marked by binary 10).
    """
    machine.text("bpf vfs_read")
    number = max((int(found) for found in re.findall(r"prog_id:\s*(\d+)", _descriptors(machine))), default=0)
    if not 0 < number < _SLOTS:
        raise NotApplicable(f"the newest BPF program has number {number}, which is not in the first node")
    btf = machine.btf()
    root = VirtAddr(machine.symbols.find("prog_idr").address + btf.member("idr", "idr_rt.xa_head").offset)
    node = machine.memory.pointer(root)
    if node & _INTERNAL != 2:  # noqa: PLR2004 - the mark of an internal node
        raise NotApplicable("prog_idr has no node")
    slot = VirtAddr(node - 2 + btf.member("xa_node", "slots").offset + 8 * number)
    program = machine.memory.pointer(slot)
    if program == 0:
        raise UsageError(f"prog_idr does not hold program {number}")
    changes = put_all(machine, [pointer(f"prog_idr[{number}]", slot, 0)])
    return Planted(changes, values={"program": int(program), "number": number})


def _descriptors(machine: Machine) -> str:
    return machine.text("cat /proc/$(pidof bpf | cut -d' ' -f1)/fdinfo/*")


def memory_slot(machine: Machine) -> Planted:
    """Lets a memory slot that a guest has not touched yet name an address of the host's kernel.

    KVM would look there when the guest first touches it.
    Source: include/linux/kvm_host.h, `struct kvm_memory_slot` (npages before userspace_addr).
    """
    counts = machine.counts().get("vm1", {})
    memory, pages = counts.get("spare", 0), counts.get("pages", 0)
    for place in each_heap_match(machine, struct.pack("<Q", memory)) if memory else ():
        around = machine.memory.read(VirtAddr(place - _BEFORE), _BEFORE)
        if struct.pack("<Q", pages) in [around[at : at + 8] for at in range(0, _BEFORE, 8)]:
            elsewhere = machine.symbols.find("_stext").address
            write = Write("kvm_memory_slot.userspace_addr", place, struct.pack("<Q", elsewhere))
            return Planted(put_all(machine, [write]), values={"original": memory})
    raise NotApplicable("no memory slot of a guest of the range was found")
