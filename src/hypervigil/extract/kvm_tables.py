"""KVM's tables of functions as facts."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from hypervigil.core.facts import Absent
from hypervigil.extract.loading import Subject, extracts
from hypervigil.facts.hypervisor import (
    EmulatorTables,
    KvmCallbacks,
    KvmDeviceOperations,
    KvmDispatch,
    KvmFileOperations,
    KvmNestedOperations,
    KvmPmuOperations,
    SvmExitHandlers,
    VmxExitHandlers,
)
from hypervigil.facts.pointers import PointerTable, Slot
from hypervigil.linux.kvm import (
    Kvm,
    each_callback,
    each_device_operation,
    each_emulator_slot,
    each_file_operation,
    each_nested_operation,
    each_operation,
    each_pmu_operation,
    exit_handlers,
    find_kvm,
)

_SVM_EXITS = (range(0xA6), range(0x400, 0x404))
"""Exit codes of AMD64 APM volume 2, appendix C: intercepts, nested paging, AVIC, VMGEXIT."""

_VMX_EXITS = (range(0x44),)
"""Basic exit reasons of Intel SDM volume 3D, appendix C."""

_NO_VENDOR = "neither kvm_amd nor kvm_intel is loaded"

P = TypeVar("P", bound=PointerTable)


@extracts(KvmDispatch)
def kvm_dispatch(subject: Subject) -> KvmDispatch | Absent:
    """``kvm_x86_ops``, the keys and the trampolines."""
    kvm = find_kvm(subject.system)
    if isinstance(kvm, Absent):
        return kvm
    if not kvm.vendor:
        return Absent(f"{_NO_VENDOR}: kvm_x86_ops is empty")
    return KvmDispatch(vendor=kvm.vendor, operations=tuple(each_operation(kvm)))


@extracts(KvmNestedOperations)
def kvm_nested_operations(subject: Subject) -> KvmNestedOperations | Absent:
    """Operations for nested guests."""
    return _vendor_table(subject, KvmNestedOperations, each_nested_operation)


@extracts(KvmPmuOperations)
def kvm_pmu_operations(subject: Subject) -> KvmPmuOperations | Absent:
    """Operations of virtual performance counters."""
    return _vendor_table(subject, KvmPmuOperations, each_pmu_operation)


@extracts(EmulatorTables)
def emulator_tables(subject: Subject) -> EmulatorTables | Absent:
    """The instruction emulator's tables."""
    kvm = find_kvm(subject.system)
    return kvm if isinstance(kvm, Absent) else EmulatorTables(slots=tuple(each_emulator_slot(kvm)))


@extracts(SvmExitHandlers)
def svm_exit_handlers(subject: Subject) -> SvmExitHandlers | Absent:
    """What kvm_amd does at each exit."""
    kvm = _with_vendor(subject, "kvm_amd")
    if isinstance(kvm, Absent):
        return kvm
    found = exit_handlers(kvm, "svm_exit_handlers", "kvm_amd", _SVM_EXITS)
    return SvmExitHandlers(slots=found.items, gaps=found.gaps)


@extracts(VmxExitHandlers)
def vmx_exit_handlers(subject: Subject) -> VmxExitHandlers | Absent:
    """What kvm_intel does at each exit."""
    kvm = _with_vendor(subject, "kvm_intel")
    if isinstance(kvm, Absent):
        return kvm
    found = exit_handlers(kvm, "kvm_vmx_exit_handlers", "kvm_intel", _VMX_EXITS)
    return VmxExitHandlers(slots=found.items, gaps=found.gaps)


@extracts(KvmFileOperations)
def kvm_file_operations(subject: Subject) -> KvmFileOperations | Absent:
    """File operations of KVM's modules."""
    kvm = find_kvm(subject.system)
    return kvm if isinstance(kvm, Absent) else KvmFileOperations(slots=tuple(each_file_operation(kvm)))


@extracts(KvmDeviceOperations)
def kvm_device_operations(subject: Subject) -> KvmDeviceOperations | Absent:
    """Kinds of devices that KVM can create; the first comes with a vendor's module (kvm_init, virt/kvm/kvm_main.c)."""
    kvm = find_kvm(subject.system)
    if isinstance(kvm, Absent):
        return kvm
    slots = tuple(each_device_operation(kvm))
    if not kvm.vendor and not any(slot.target.address for slot in slots):
        return Absent(_NO_VENDOR)
    return KvmDeviceOperations(slots=slots)


@extracts(KvmCallbacks)
def kvm_callbacks(subject: Subject) -> KvmCallbacks | Absent:
    """Hooks that KVM hands to the kernel."""
    kvm = find_kvm(subject.system)
    return kvm if isinstance(kvm, Absent) else KvmCallbacks(slots=tuple(each_callback(kvm)))


def _vendor_table(subject: Subject, kind: type[P], walk: Callable[[Kvm], Iterator[Slot]]) -> P | Absent:
    kvm = find_kvm(subject.system)
    if isinstance(kvm, Absent):
        return kvm
    if not kvm.vendor:
        return Absent(_NO_VENDOR)
    return kind(slots=tuple(walk(kvm)))


def _with_vendor(subject: Subject, vendor: str) -> Kvm | Absent:
    kvm = find_kvm(subject.system)
    if isinstance(kvm, Absent):
        return kvm
    return kvm if kvm.vendor == vendor else Absent(f"{vendor} is not loaded")
