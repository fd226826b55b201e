"""Alterations of the small host, one place each, and the checks that must find them."""

import struct
from collections.abc import Callable

from hypervigil.core.units import PAGE_SIZE
from hypervigil.decode.btf import Btf
from hypervigil.decode.btf_types import BtfKind
from tests.linux.c_types import words
from tests.linux.host_builder import JIT, kvm_types
from tests.linux.kernel_builder import HEAP, RODATA, TEXT, KernelImage
from tests.linux.module_builder import FIRST
from tests.memory.page_tables import NO_EXECUTE, USER, WRITABLE

Alter = Callable[[KernelImage], int | None]
"""Alters a host; returns the virtual address that a violation must name."""

STUB = JIT + 0x10_0000


def stub(image: KernelImage) -> int:
    """A pass-through stub in a cave of the kernel's text: behind the last function."""
    at = image.symbols["_etext"][0] + 64
    image.poke_image(at, b"\x48\x89\xc0\xe9\0\0\0\0")
    return at


def system_call(image: KernelImage) -> int:
    at = image.symbols["sys_call_table"][0] + 8
    image.poke(at, words(stub(image)))
    return at


def swapped_calls(image: KernelImage) -> int:
    at = image.symbols["sys_call_table"][0]
    image.poke(at, image.peek(at + 8, 8))
    return at


def gate_for_users(image: KernelImage) -> int:
    at = image.symbols["idt_table"][0]
    image.poke(at + 16 * 6 + 4, struct.pack("<H", 0xEE00))
    return at + 16 * 6


def other_table_in_use(image: KernelImage) -> None:
    image.poke(image.symbols["idt_descr"][0] + 2, words(RODATA))


def page_of_nobody(image: KernelImage) -> int:
    image.page(STUB, b"\x90\xc3" * 64, writable=False, executable=True)
    return STUB


def page_in_the_user_half(image: KernelImage) -> int:
    at = 0x40_0000
    image.page(at, b"\xcc" * PAGE_SIZE, writable=False, executable=True)
    return at


def data_in_the_user_half(image: KernelImage) -> int:
    image.page(0x7000_0000_0000)
    return 0x7000_0000_0000


def shared_table(image: KernelImage) -> int:
    """A second entry for the tables of the modules, half a gigabyte behind their own."""
    own = image.slot(FIRST, 2)
    image.put(own + 8 * 255, image.get(own))
    return (FIRST & -(1 << 21)) + 255 * (1 << 21)


def writable_text(image: KernelImage) -> int:
    slot = image.slot(TEXT)
    image.put(slot, image.get(slot) | WRITABLE)
    return TEXT


def text_for_users(image: KernelImage) -> int:
    image.put(image.slot(TEXT), image.get(image.slot(TEXT)) | USER)
    return TEXT


def writable_rodata(image: KernelImage) -> int:
    at = FIRST + 0x8000
    image.put(image.slot(at), image.get(image.slot(at)) | WRITABLE)
    return at


def executable_data(image: KernelImage) -> int:
    at = image.symbols["phys_base"][0] & -PAGE_SIZE
    image.put(image.slot(at), image.get(image.slot(at)) & ~NO_EXECUTE)
    return at


def private_half(image: KernelImage) -> None:
    pgd = image.word(image.at["mm"] + image.types.offset("mm_struct", "pgd"))
    image.poke(pgd + 8 * 300, words(0x1063))


def residue(image: KernelImage) -> int:
    at = FIRST + 0xF00
    image.poke(at, b"\x48\x31\xc0\xc3")
    return at


def hidden_module(image: KernelImage) -> int:
    module = image.at["module dummy"]
    image.unlink(module + image.types.offset("module", "list"))
    return module


def module_out_of_sysfs(image: KernelImage) -> int:
    image.unlink(image.at["sysfs dummy"] + image.types.offset("module_kobject", "kobj.entry"))
    return image.at["module dummy"]


def hidden_task(image: KernelImage) -> int:
    task = image.at["task qemu"]
    image.unlink(task + image.types.offset("task_struct", "tasks"))
    return task


def task_without_id(image: KernelImage) -> int:
    image.member("pid", image.at["pid 1"], "tasks[0].first", 0)
    return image.at["task systemd"]


def operation(image: KernelImage) -> int:
    at = image.at["kvm_x86_ops"] + kvm_types().offset("kvm_x86_ops", "handle_exit")
    image.poke(at, words(image.at["svm_vcpu_run"]))
    return at


def static_call_key(image: KernelImage) -> int:
    at = image.at["__SCK__kvm_x86_handle_exit"]
    image.poke(at, words(image.at["svm_vcpu_run"]))
    return at


def trampoline(image: KernelImage) -> int:
    at = image.at["__SCT__kvm_x86_handle_exit"]
    image.poke(at + 1, struct.pack("<i", image.at["svm_vcpu_run"] - at - 5))
    return at


def exit_handler(image: KernelImage) -> int:
    at = image.at["svm_exit_handlers"] + 8 * 0xA5
    image.poke(at, words(image.at["exit_0"] + 4))
    return at


def nested_operation(image: KernelImage) -> int:
    at = image.at["svm_nested_ops"]
    image.poke(at, words(image.symbols["exported_one"][0]))
    return at


def nested_operations(image: KernelImage) -> int:
    """A table of KVM's, and of functions, but of another kind."""
    at = image.at["kvm_x86_ops"] + kvm_types().offset("kvm_x86_ops", "nested_ops")
    image.poke(at, words(image.at["amd_pmu_ops"]))
    return at


def counters(image: KernelImage) -> int:
    at = image.at["kvm_pmu_ops"]
    image.poke(at, words(HEAP))
    return at


def opcode(image: KernelImage) -> int:
    at = image.at["group1"] + 8
    image.poke(at, words(image.at["dummy_init"]))
    return at


def file_operation(image: KernelImage) -> int:
    at = image.at["kvm_vm_fops"] + image.types.offset("file_operations", "unlocked_ioctl")
    image.poke(at, words(image.at["dummy_init"]))
    return at


def open_file(image: KernelImage) -> int:
    at = image.at["file 4"] + image.types.offset("file", "f_op")
    image.poke(at, words(image.heap(image.peek(image.at["kvm_vm_fops"], image.types.size("file_operations")))))
    return at


def io_device(image: KernelImage) -> int:
    at = image.at["io device"]
    image.poke(at, words(image.heap(image.peek(image.at["ioapic_mmio_ops"], 24))))
    return at


def interrupt_fd(image: KernelImage) -> int:
    at = image.at["irqfd"] + kvm_types().offset("kvm_kernel_irqfd", "wait.func")
    image.poke(at, words(image.at["dummy_init"]))
    return at


def kind_of_device(image: KernelImage) -> int:
    at = image.at["kvm_vfio_ops"] + 8
    image.poke(at, words(image.at["dummy_init"]))
    return at


def created_device(image: KernelImage) -> int:
    at = image.at["kvm device"]
    image.poke(at, words(image.heap(image.peek(image.at["kvm_vfio_ops"], 24))))
    return at


def device_with_file_operations(image: KernelImage) -> int:
    at = image.at["kvm device"]
    image.poke(at, words(image.at["kvm_vcpu_fops"]))
    return at


def device_with_operations_of_that_size(image: KernelImage) -> int:
    at = image.at["kvm device"]
    image.poke(at, words(image.at["ioapic_mmio_ops"]))
    return at


def kind_of_device_with_file_operations(image: KernelImage) -> int:
    at = image.at["kvm_device_ops_table"] + 8
    image.poke(at, words(image.at["kvm_vcpu_fops"]))
    return at


def io_device_with_file_operations(image: KernelImage) -> int:
    at = image.at["io device"]
    image.poke(at, words(image.at["kvm_vcpu_fops"]))
    return at


def callback(image: KernelImage) -> int:
    at = image.at["kvm_preempt_ops"]
    image.poke(at, words(image.at["dummy_init"]))
    return at


def hidden_machine(image: KernelImage) -> int:
    image.unlink(image.at["machine"] + kvm_types().offset("kvm", "vm_list"))
    return image.at["machine"]


def other_release(image: KernelImage) -> None:
    at = image.symbols["init_uts_ns"][0] + image.types.offset("uts_namespace", "name.release")
    image.poke(at, b"9.9.9\0")


def other_base(image: KernelImage) -> None:
    image.poke(image.symbols["phys_base"][0], words(0x1234))


def export_elsewhere(image: KernelImage) -> None:
    at = image.symbols["__start___ksymtab"][0]
    image.poke(at, struct.pack("<i", stub(image) - at))


def moved_member(image: KernelImage) -> int:
    """Type information of kvm that moves a member over the next one."""
    types = Btf(kvm_types().btf, Btf(image.types.btf))
    (device,) = types.find("kvm_device", BtfKind.STRUCT)
    names = [member.name for member in types.members(device)]
    start = image.word(image.at["btf of kvm"] + image.types.offset("btf", "data"))
    at = start + types.record(device)[0] + 12 + 12 * names.index("private") + 8
    image.poke(at, struct.pack("<I", 8 * 24))
    return at


def other_offset(image: KernelImage) -> int:
    at = image.at["vmcoreinfo"] + image.data[image.at["vmcoreinfo"] :].index(b"KERNELOFFSET=0") + 13
    image.data[at : at + 1] = b"9"
    return HEAP + at


TAMPERINGS: dict[str, tuple[Alter, tuple[str, ...]]] = {
    "release": (other_release, ("KRN-001",)),
    "KASLR offset": (other_offset, ("KRN-001",)),
    "moved member": (moved_member, ("KRN-001",)),
    "phys_base": (other_base, ("KRN-001",)),
    "export": (export_elsewhere, ("KRN-002", "KRN-014")),
    "system call": (system_call, ("KRN-003", "KRN-014")),
    "system calls swapped": (swapped_calls, ("KRN-003",)),
    "gate for users": (gate_for_users, ("KRN-004",)),
    "another interrupt table": (other_table_in_use, ("KRN-004",)),
    "executable page of nobody": (page_of_nobody, ("KRN-005",)),
    "executable page in the user half": (page_in_the_user_half, ("KRN-005", "KRN-008")),
    "data in the user half": (data_in_the_user_half, ("KRN-008",)),
    "executable data": (executable_data, ("KRN-005", "KRN-006")),
    "shared page table": (shared_table, ("KRN-008",)),
    "writable text": (writable_text, ("KRN-006", "KRN-007")),
    "text open to users": (text_for_users, ("KRN-006",)),
    "writable read-only data": (writable_rodata, ("KRN-007",)),
    "private kernel half": (private_half, ("KRN-008",)),
    "module off its list": (hidden_module, ("KRN-012",)),
    "module off sysfs": (module_out_of_sysfs, ("KRN-012",)),
    "task off its list": (hidden_task, ("KRN-013",)),
    "task without id": (task_without_id, ("KRN-013",)),
    "code behind the last function": (residue, ("KRN-014",)),
    "operation": (operation, ("KVM-001",)),
    "static call key": (static_call_key, ("KRN-009", "KVM-001")),
    "static call trampoline": (trampoline, ("KRN-009", "KVM-001")),
    "nested operation": (nested_operation, ("KVM-003",)),
    "table of nested operations": (nested_operations, ("KVM-003",)),
    "performance counters": (counters, ("KVM-001", "KVM-002", "KVM-004")),
    "opcode": (opcode, ("KVM-005",)),
    "exit handler": (exit_handler, ("KVM-006",)),
    "file operation": (file_operation, ("KVM-008",)),
    "open file": (open_file, ("KVM-009",)),
    "I/O device": (io_device, ("KVM-010",)),
    "irqfd": (interrupt_fd, ("KVM-011",)),
    "kind of device": (kind_of_device, ("KVM-012",)),
    "created device": (created_device, ("KVM-013",)),
    "created device with file operations": (device_with_file_operations, ("KVM-013",)),
    "created device with other operations": (device_with_operations_of_that_size, ("KVM-013",)),
    "kind of device with file operations": (kind_of_device_with_file_operations, ("KVM-012",)),
    "I/O device with file operations": (io_device_with_file_operations, ("KVM-010",)),
    "callback": (callback, ("KVM-014",)),
    "machine off its list": (hidden_machine, ("KVM-015",)),
}
"""What is altered, and the checks that must say so."""
