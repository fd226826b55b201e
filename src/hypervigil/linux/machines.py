"""Virtual machines of KVM, through structures that do not depend on each other, and what hangs on each.

``struct kvm`` (include/linux/kvm_host.h). Views: ``vm_list``; open files of processes; the memory notifiers by which
KVM follows the memory of a machine's process (``struct mmu_notifier`` on ``mm->notifier_subscriptions``); the virtual
processor that each physical one has loaded (``kvm_running_vcpu``).
"""

from collections.abc import Iterator

import drgn
import msgspec

from hypervigil.core.errors import EvidenceError, MissingDescription
from hypervigil.core.facts import Gap, Observed
from hypervigil.core.units import VirtAddr
from hypervigil.facts.pointers import Slot
from hypervigil.linux.files import OpenFile
from hypervigil.linux.kvm import KVM, Kvm, device_tables, functions_of, kinds_of_device, tables_of_type
from hypervigil.linux.lists import walk_chain, walk_list
from hypervigil.linux.members import address_of, element, has, length, member, number, offset_of
from hypervigil.linux.percpu import each_cpu_offset, per_cpu
from hypervigil.linux.system import HYPERVISOR_MODULES
from hypervigil.linux.tasks import Task
from hypervigil.linux.xarray import xarray_entries

_BUSES = ("MMIO bus", "PIO bus", "virtio-ccw bus", "fast MMIO bus", "iocsr bus")
_BUS_OWNERS = (*HYPERVISOR_MODULES, "vfio", "vfio_pci", "vfio_pci_core")
_MAX_DEVICES = 4096
_MAX_PROCESSORS = 4096


def listed_machines(kvm: Kvm) -> Observed[int]:
    """Addresses of the machines on ``vm_list``."""
    head = kvm.system.find("vm_list", KVM)
    if head is None:
        raise MissingDescription("symbol vm_list was not found in kvm")
    kernel = kvm.system.kernel
    return walk_list(kernel.space, head, offset_of(kernel.type("struct kvm"), "vm_list"), "vm_list")


def machines_by_notifier(kvm: Kvm, tasks: tuple[Task, ...]) -> Observed[int]:
    """Addresses of the machines whose notifier hangs on the memory of a process."""
    kernel = kvm.system.kernel
    inside = offset_of(kernel.type("struct kvm"), "mmu_notifier")
    link = offset_of(kernel.type("struct mmu_notifier"), "hlist")
    operations = kvm.system.find("kvm_mmu_notifier_ops", KVM)
    found: dict[int, None] = {}
    gaps: list[Gap] = []
    for mm in sorted({task.mm for task in tasks if task.mm}):
        try:
            subscriptions = number(kernel.object("struct mm_struct", mm), "notifier_subscriptions")
            if not subscriptions:
                continue
            first = number(kernel.object("struct mmu_notifier_subscriptions", subscriptions), "list.first")
            walked = walk_chain(kernel.space, first, 0, f"memory notifiers of {mm:#x}")
            gaps += walked.gaps
            for node in walked.items:
                notifier = kernel.object("struct mmu_notifier", node - link)
                if number(notifier, "ops") == operations:
                    found[node - link - inside] = None
        except EvidenceError as fault:
            gaps.append(Gap(f"memory notifiers of {mm:#x}", str(fault)))
    return Observed(tuple(found), tuple(gaps))


def machines_running(kvm: Kvm) -> Observed[int]:
    """Addresses of the machines of which a processor is loaded: ``kvm_running_vcpu`` of each physical processor.

    7495e22bb165 "KVM: Move running VCPU from ARM to common code" (5.6).
    """
    variable = kvm.system.find("kvm_running_vcpu", KVM)
    if variable is None:
        raise MissingDescription("symbol kvm_running_vcpu was not found in kvm")
    kernel = kvm.system.kernel
    found: dict[int, None] = {}
    for _, offset in each_cpu_offset(kernel):
        processor = int.from_bytes(kernel.space.read(per_cpu(variable, offset), 8, zero_ok=True), "little")
        if processor:
            found[number(kernel.object("struct kvm_vcpu", processor), "kvm")] = None
    return Observed(tuple(found))


def machine_objects(kvm: Kvm, machine: int) -> Observed[tuple[int, str]]:
    """``(address, kind)`` of what files of a machine may carry: itself, its processors, its devices."""
    found: list[tuple[int, str]] = [(machine, "kvm-vm")]
    processors = _processors(kvm, machine)
    devices = _created_devices(kvm, machine)
    found += [(address, "kvm-vcpu") for address in processors.items]
    found += [(address, "kvm-device") for address in devices.items]
    return Observed(tuple(found), processors.gaps + devices.gaps)


def _processors(kvm: Kvm, machine: int) -> Observed[int]:
    """An array of pointers until 5.16, an xarray since c5b077549136 "KVM: Convert the kvm->vcpus array to a xarray"."""
    thing = kvm.system.kernel.object("struct kvm", machine)
    what = f"processors of machine {machine:#x}"
    if has(thing.type_, "vcpu_array"):
        return xarray_entries(kvm.system.kernel, number(thing, "vcpu_array.xa_head"), what)
    count = min(number(thing, "online_vcpus.counter"), _MAX_PROCESSORS)
    slots = [number(element(member(thing, "vcpus"), index)) for index in range(count)]
    return Observed(tuple(slot for slot in slots if slot))


def _created_devices(kvm: Kvm, machine: int) -> Observed[int]:
    kernel = kvm.system.kernel
    head = address_of(kernel.object("struct kvm", machine), "devices")
    offset = offset_of(kernel.type("struct kvm_device"), "vm_node")
    return walk_list(kernel.space, head, offset, f"devices of machine {machine:#x}")


def each_io_device(kvm: Kvm, machine: int) -> Iterator[Slot]:
    """``ops`` of every device on the I/O buses of a machine, and the functions behind, once for each table.

    Raises:
        EvidenceError: a bus cannot be read.
    """
    kernel = kvm.system.kernel
    buses = member(kernel.object("struct kvm", machine), "buses")
    shown: set[int] = set()
    wanted = _bus_tables(kvm)
    for number_of_bus in range(min(length(buses), len(_BUSES))):
        bus = element(buses, number_of_bus)
        if not number(bus):
            continue
        count = number(bus, "dev_count")
        if count > _MAX_DEVICES:
            raise MissingDescription(f"an I/O bus of machine {machine:#x} has {count} devices")
        for index in range(count):
            slot = _io_device(kvm, machine, number_of_bus, bus, index)
            yield msgspec.structs.replace(slot, wanted=wanted)
            if slot.target.address not in shown:
                shown.add(slot.target.address)
                name = slot.target.symbol if not slot.target.offset else ""
                yield from functions_of(kvm.system, name or slot.name, slot.target.address, "struct kvm_io_device_ops")


def _bus_tables(kvm: Kvm) -> tuple[str, ...]:
    """Symbols of every ``struct kvm_io_device_ops``; ``kvm_syscore_ops`` has the same size, since it is no list."""
    names = {name for name, _ in tables_of_type(kvm, "struct kvm_io_device_ops", *_BUS_OWNERS)}
    return tuple(sorted(name for name in names if "syscore" not in name))


def _io_device(kvm: Kvm, machine: int, number_of_bus: int, bus: drgn.Object, index: int) -> Slot:
    entry = element(member(bus, "range"), index)
    device = number(entry, "dev")
    place = number(entry, "addr")
    name = f"machine {machine:#x} {_BUSES[number_of_bus]}[{index}] ({place:#x}).ops"
    return kvm.system.slot(name, address_of(kvm.system.kernel.object("struct kvm_io_device", device), "ops"))


def each_interrupt_fd(kvm: Kvm, machine: int) -> Iterator[Slot]:
    """Functions that an irqfd hands to the rest of the kernel.

    Raises:
        EvidenceError: the list cannot be walked, or an entry does not belong to the machine.
    """
    kernel = kvm.system.kernel
    kind = kernel.type("struct kvm_kernel_irqfd")
    head = address_of(kernel.object("struct kvm", machine), "irqfds.items")
    walked = walk_list(kernel.space, head, offset_of(kind, "list"), f"irqfds of machine {machine:#x}")
    for index, address in enumerate(walked.items):
        thing = kernel.object("struct kvm_kernel_irqfd", address)
        if number(thing, "kvm") != machine:
            raise MissingDescription(f"irqfd at {address:#x} does not belong to machine {machine:#x}")
        for path in ("wait.func", "pt._qproc", "shutdown.func", "inject.func"):
            if has(kind, path):
                place = address + offset_of(kind, path)
                value = int.from_bytes(kernel.space.read(VirtAddr(place), 8), "little")
                if value:
                    yield kvm.system.slot(f"machine {machine:#x} irqfd[{index}].{path}", place, value)
    if walked.gaps:
        raise MissingDescription(str(walked.gaps[0]))


def each_created_device(kvm: Kvm, machine: int) -> Iterator[Slot]:
    """``ops`` of every device that was created for a machine: a table of a kind that KVM can create.

    kvm_ioctl_create_device (virt/kvm/kvm_main.c) takes it from ``kvm_device_ops_table``. Whether what stands in there
    now is rightful is a question of its own: a device may be older than a change of it.

    Raises:
        EvidenceError: the list cannot be walked, a device does not belong to the machine, or what kinds there are
            cannot be read.
    """
    walked = _created_devices(kvm, machine)
    wanted = _creatable(kvm) if walked.items else ()
    for index, address in enumerate(walked.items):
        thing = kvm.system.kernel.object("struct kvm_device", address)
        if number(thing, "kvm") != machine:
            raise MissingDescription(f"device at {address:#x} does not belong to machine {machine:#x}")
        yield kvm.system.slot(f"machine {machine:#x} device[{index}].ops", address_of(thing, "ops"), wanted=wanted)
    if walked.gaps:
        raise MissingDescription(str(walked.gaps[0]))


def _creatable(kvm: Kvm) -> tuple[str, ...]:
    """Symbols of KVM's own tables of that type, and of what others have put into ``kvm_device_ops_table``.

    Raises:
        MissingDescription: there is none, though devices exist.
    """
    targets = [slot.target for slot in kinds_of_device(kvm) if slot.target.symbol and not slot.target.offset]
    found = {target.symbol for target in targets if target.owner not in HYPERVISOR_MODULES}.union(device_tables(kvm))
    if not found:
        raise MissingDescription("KVM has no table of operations of a device, though devices exist")
    return tuple(sorted(found))


def machine_of_file(kvm: Kvm, file: OpenFile) -> int | None:
    """The machine that an open file of KVM belongs to, judged by its table of operations; None if it is none."""
    target = kvm.system.target(file.operations)
    if target.owner != KVM or target.offset:
        return None
    kernel = kvm.system.kernel
    if target.symbol == "kvm_vm_fops":
        return file.private
    if target.symbol == "kvm_vcpu_fops":
        return number(kernel.object("struct kvm_vcpu", file.private), "kvm")
    if target.symbol == "kvm_device_fops":
        return number(kernel.object("struct kvm_device", file.private), "kvm")
    return None
