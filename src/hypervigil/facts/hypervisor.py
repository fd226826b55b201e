"""Facts about KVM: how it dispatches, and what hangs on each of its machines."""

from collections.abc import Iterator

import msgspec

from hypervigil.core.facts import require
from hypervigil.facts.pointers import Objects, Pointers, PointerTable, Slot, Target
from hypervigil.facts.views import CrossView


class Dispatch(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of ``kvm_x86_ops`` as its several holders see it; None where the kernel has no such holder.

    Attributes:
        name: the operation, such as ``handle_exit``.
        operation: the slot in ``kvm_x86_ops``.
        key: ``func`` of the static call key.
        trampoline: where the static call trampoline jumps.
    """

    name: str
    operation: Slot
    key: Slot | None = None
    trampoline: Slot | None = None


class KvmDispatch(Pointers, kw_only=True, frozen=True):
    """``kvm_x86_ops`` and the static calls made from it.

    Raises:
        ImpossibleFact: no operation: a loaded KVM has some hundred.
    """

    vendor: str
    operations: tuple[Dispatch, ...]

    def __post_init__(self) -> None:
        require(self.operations or self.gaps, "kvm_x86_ops without operations")

    def each_target(self) -> Iterator[Target]:
        """Where each holder of each operation leads."""
        for operation in self.operations:
            for holder in (operation.operation, operation.key, operation.trampoline):
                if holder is not None:
                    yield holder.target


class KvmNestedOperations(PointerTable, frozen=True):
    """``kvm_x86_nested_ops`` and the vendor's table of them."""


class KvmPmuOperations(PointerTable, frozen=True):
    """``kvm_pmu_ops``: virtual performance counters."""


class EmulatorTables(PointerTable, frozen=True):
    """The instruction emulator's tables: ``opcode_table``, ``twobyte_table``, ``emulate_ops``, groups."""


class SvmExitHandlers(PointerTable, frozen=True):
    """``svm_exit_handlers``: what AMD's part of KVM does at each exit reason."""


class VmxExitHandlers(PointerTable, frozen=True):
    """``kvm_vmx_exit_handlers``: what Intel's part of KVM does at each exit reason."""


class KvmFileOperations(PointerTable, frozen=True):
    """The file operations of /dev/kvm, machines, virtual processors and devices."""


class KvmDeviceOperations(PointerTable, frozen=True):
    """``kvm_device_ops_table`` and the operations behind each entry."""


class KvmCallbacks(PointerTable, frozen=True):
    """Hooks that KVM hands to the rest of the kernel: preemption, MMU notifiers, perf, clock."""


class KvmOpenFiles(Objects, frozen=True):
    """Every open file of KVM: its ``f_op`` must be one of KVM's own tables."""


class KvmIoDevices(Objects, frozen=True):
    """Devices on the I/O buses of every machine: their ``ops`` and the functions behind these."""


class KvmInterruptFds(Objects, frozen=True):
    """Every irqfd: its wake function, and the functions of its poll table."""


class KvmDevices(Objects, frozen=True):
    """Devices made with KVM_CREATE_DEVICE: their ``ops``."""


class KvmMachines(CrossView, frozen=True):
    """Virtual machines through ``vm_list``, open files, debugfs and the virtual processors that run."""
