"""KVM in a kernel under construction: its tables, and a virtual machine with all that hangs on it."""

import struct

from tests.linux.c_types import CTypes, words
from tests.linux.kernel_builder import KernelImage
from tests.linux.module_builder import Module

_EXITS = 0x404
SVM_EXITS = (*range(4), 0xA5, 0x400, 0x403)
"""Exit reasons that have a handler here."""

OPERATIONS = ("check_processor", "vcpu_run", "handle_exit")


def put_tables(kvm: Module, amd: Module, types: CTypes) -> None:
    """KVM's tables of functions, in the two modules."""
    nested = amd.table("svm_nested_ops", "kvm_x86_nested_ops", types, leave_nested=amd.function("svm_leave_nested"))
    amd.table("amd_pmu_ops", "kvm_pmu_ops", types, refresh=amd.function("amd_pmu_refresh"))
    operations = {name: amd.function(f"svm_{name}") for name in OPERATIONS}
    kvm.table("kvm_x86_ops", "kvm_x86_ops", types, "d", nested_ops=nested, **operations)
    kvm.table("kvm_pmu_ops", "kvm_pmu_ops", types, "d", refresh=amd.symbols["amd_pmu_refresh"][0])
    for name, target in (
        *((f"kvm_x86_{n}", a) for n, a in operations.items()),
        ("kvm_x86_pmu_refresh", amd.symbols["amd_pmu_refresh"][0]),
    ):
        static_call(kvm, name, target)
    handlers = [amd.function(f"exit_{reason:x}") if reason in SVM_EXITS else 0 for reason in range(_EXITS)]
    amd.put("r", words(*handlers), "svm_exit_handlers")
    _emulator(kvm, types)
    for name, functions in (
        ("kvm_chardev_ops", {"unlocked_ioctl": "kvm_dev_ioctl"}),
        ("kvm_vm_fops", {"unlocked_ioctl": "kvm_vm_ioctl", "release": "kvm_vm_release"}),
        ("kvm_vcpu_fops", {"unlocked_ioctl": "kvm_vcpu_ioctl"}),
        ("kvm_device_fops", {"unlocked_ioctl": "kvm_device_ioctl"}),
    ):
        kvm.table(name, "file_operations", types, "d", **{k: kvm.function(f) for k, f in functions.items()})
    device = kvm.table("kvm_vfio_ops", "kvm_device_ops", types, create=kvm.function("kvm_vfio_create"))
    kvm.put("d", words(0, device), "kvm_device_ops_table")
    kvm.table("kvm_preempt_ops", "preempt_ops", types, "d", sched_in=kvm.function("kvm_sched_in"))
    kvm.table("kvm_mmu_notifier_ops", "mmu_notifier_ops", types, release=kvm.function("kvm_mmu_notifier_release"))
    kvm.put("d", words(0, 0), "vm_list")
    kvm.symbols["kvm_running_vcpu"] = (0x180, 8, "d")  # per-CPU


def static_call(kvm: Module, name: str, target: int) -> None:
    """The key of a static call and its trampoline."""
    kvm.put("d", words(target, 0), f"__SCK__{name}")
    at = kvm.put("t", b"\xe9\0\0\0\0\x0f\xb9\xcc".ljust(16, b"\xcc"), f"__SCT__{name}")
    kvm.kernel.poke(at, b"\xe9" + struct.pack("<i", target - at - 5))


def _emulator(kvm: Module, types: CTypes) -> None:
    kvm.table("emulate_ops", "x86_emulate_ops", types, read_gpr=kvm.function("emulator_read_gpr"))
    group = kvm.put("r", words(1, kvm.function("em_grp"), 0), "group1")
    for name in ("opcode_table", "twobyte_table", "opcode_map_0f_38"):
        kvm.put("r", words(1, kvm.function("em_add"), kvm.function("check_cr"), 2, group, 0), name)


class Machine:
    """A virtual machine with a processor, a device on a bus, an irqfd and a created device."""

    def __init__(self, kernel: KernelImage, kvm: Module, types: CTypes, process_id: int) -> None:
        self.kernel, self.types = kernel, types
        self.address = kernel.object("kvm", types, userspace_pid=process_id)
        self.processor = kernel.object("kvm_vcpu", types, kvm=self.address, cpu=1)
        kernel.member("kvm", self.address, "vcpu_array.xa_head", self.processor, types)
        self._bus(kvm)
        self._interrupts(kvm)
        self.device = kernel.object("kvm_device", types, kvm=self.address, ops=kvm.symbols["kvm_vfio_ops"][0])
        kernel.link(self.address + types.offset("kvm", "devices"), self.device + types.offset("kvm_device", "vm_node"))
        self.notifier = self.address + types.offset("kvm", "mmu_notifier")
        kernel.set("kvm", self.address, types, mmu_notifier__ops=kvm.symbols["kvm_mmu_notifier_ops"][0])
        kernel.at |= {"machine": self.address, "vcpu": self.processor, "kvm device": self.device}

    def _bus(self, kvm: Module) -> None:
        operations = kvm.table(
            "ioapic_mmio_ops", "kvm_io_device_ops", self.types, read=kvm.function("ioapic_mmio_read")
        )
        device = self.kernel.object("kvm_io_device", self.types, ops=operations)
        bus = self.kernel.object("kvm_io_bus", self.types, dev_count=1)
        self.kernel.member("kvm_io_bus", bus, "range[0].dev", device, self.types)
        self.kernel.member("kvm_io_bus", bus, "range[0].addr", 0xFEC0_0000, self.types)
        self.kernel.member("kvm", self.address, "buses[0]", bus, self.types)
        self.kernel.at |= {"io bus": bus, "io device": device}

    def _interrupts(self, kvm: Module) -> None:
        kernel, types = self.kernel, self.types
        irqfd = kernel.object("kvm_kernel_irqfd", types, kvm=self.address, wait__func=kvm.function("irqfd_wakeup"))
        kernel.member("kvm_kernel_irqfd", irqfd, "pt._qproc", kvm.function("irqfd_ptable_queue_proc"), types)
        head = self.address + types.offset("kvm", "irqfds.items")
        kernel.link(head, irqfd + types.offset("kvm_kernel_irqfd", "list"))
        kernel.at["irqfd"] = irqfd
