"""What hangs on each virtual machine, as facts."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from hypervigil.core.errors import EvidenceError
from hypervigil.core.facts import Absent, Gap
from hypervigil.extract.loading import Subject, extracts
from hypervigil.facts.hypervisor import KvmDevices, KvmInterruptFds, KvmIoDevices, KvmOpenFiles
from hypervigil.facts.pointers import Objects, Slot
from hypervigil.linux.files import OpenFile
from hypervigil.linux.kvm import Kvm
from hypervigil.linux.machines import each_created_device, each_interrupt_fd, each_io_device, machine_objects
from hypervigil.linux.system import HYPERVISOR_MODULES

_FILE_TABLES = {
    "kvm-vm": ("kvm_vm_fops", "kvm_vm_stats_fops"),
    "kvm-vcpu": ("kvm_vcpu_fops", "kvm_vcpu_stats_fops"),
    "kvm-device": ("kvm_device_fops",),
}
O = TypeVar("O", bound=Objects)  # noqa: E741 - a type variable


@extracts(KvmIoDevices)
def kvm_io_devices(subject: Subject) -> KvmIoDevices | Absent:
    """Devices on the I/O buses of every machine."""
    return _per_machine(subject, KvmIoDevices, each_io_device, "I/O devices")


@extracts(KvmInterruptFds)
def kvm_interrupt_fds(subject: Subject) -> KvmInterruptFds | Absent:
    """Irqfds of every machine."""
    return _per_machine(subject, KvmInterruptFds, each_interrupt_fd, "irqfds")


@extracts(KvmDevices)
def kvm_devices(subject: Subject) -> KvmDevices | Absent:
    """Created devices of every machine."""
    return _per_machine(subject, KvmDevices, each_created_device, "created devices")


@extracts(KvmOpenFiles)
def kvm_open_files(subject: Subject) -> KvmOpenFiles | Absent:
    """Open files that use a table of KVM's, or that carry a machine, a processor or a device of one."""
    kvm = subject.census.kvm
    if isinstance(kvm, Absent):
        return kvm
    machines = subject.census.machines(kvm)
    gaps = [*machines.gaps, *subject.census.files.gaps]
    carried: dict[int, str] = {}
    for machine in machines.items:
        try:
            objects = machine_objects(kvm, machine)
        except EvidenceError as fault:
            gaps.append(Gap(f"machine {machine:#x}", str(fault)))
            continue
        gaps += objects.gaps
        carried |= dict(objects.items)
    slots = [slot for file in subject.census.files.items if (slot := _file_slot(kvm, file, carried)) is not None]
    return KvmOpenFiles(slots=tuple(slots), looked_at=len(subject.census.tasks.items), gaps=tuple(sorted(set(gaps))))


def _file_slot(kvm: Kvm, file: OpenFile, carried: dict[int, str]) -> Slot | None:
    kind = carried.get(file.private, "")
    if not kind and kvm.system.target(file.operations).owner not in HYPERVISOR_MODULES:
        return None
    name = f"process {file.process.name} file {file.descriptor}{f' ({kind})' if kind else ''}.f_op"
    return kvm.system.slot(name, file.operations_at, file.operations, _FILE_TABLES.get(kind, ()))


def _per_machine(subject: Subject, kind: type[O], walk: Callable[[Kvm, int], Iterator[Slot]], what: str) -> O | Absent:
    kvm = subject.census.kvm
    if isinstance(kvm, Absent):
        return kvm
    machines = subject.census.machines(kvm)
    slots: list[Slot] = []
    gaps = list(machines.gaps)
    for machine in machines.items:
        try:
            for slot in walk(kvm, machine):
                slots.append(slot)  # noqa: PERF402 - what was read before a fault is kept
        except EvidenceError as fault:
            gaps.append(Gap(f"{what} of machine {machine:#x}", str(fault)))
    return kind(slots=tuple(slots), looked_at=1 + len(machines.items), gaps=tuple(sorted(set(gaps))))
