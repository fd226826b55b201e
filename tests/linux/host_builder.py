"""A sound host: a kernel with modules, processes, and KVM with one virtual machine."""

import struct
from functools import cache

from hypervigil.core.units import PAGE_SIZE
from hypervigil.linux.system import System
from hypervigil.memory.reader import Reader
from hypervigil.standards.syscalls import entry_points
from tests.linux import kvm_builder
from tests.linux.c_types import CTypes, words
from tests.linux.kernel_builder import VMALLOC, KernelImage, bare_kernel
from tests.linux.linux_types import KERNEL, KVM
from tests.linux.module_builder import FIRST, Module, knit
from tests.linux.task_builder import Tasks, files_of_a_process, memory_of_a_process

SYSTEM_CALLS = 8
JIT = FIRST + 0x40_0000
"""Where pages of generated code are."""

QEMU = 100
_RUN_QUEUES, _AREA = 0x40, 0x200


def host(levels: int = 4) -> KernelImage:
    """A copy of the sound host, to be altered."""
    return _sound(levels).copy()


def system_of(image: KernelImage, memory: Reader | None = None) -> System:
    """The system in an image."""
    return System(image.open(memory))


@cache
def kvm_types() -> CTypes:
    """The types of the module kvm."""
    return CTypes(KVM, CTypes(KERNEL))


@cache
def _sound(levels: int) -> KernelImage:
    image = bare_kernel(levels)
    _tables(image)
    kvm, amd, other = (Module(image, name, index) for index, name in enumerate(("kvm", "kvm_amd", "dummy")))
    types = kvm_types()
    kvm_builder.put_tables(kvm, amd, types)
    other.function("dummy_init")
    machine = kvm_builder.Machine(image, kvm, types, QEMU)
    image.link(kvm.symbols["vm_list"][0], machine.address + types.offset("kvm", "vm_list"))
    _processes(image, kvm, machine)
    _generated_code(image)
    for module in (kvm, amd, other):
        module.finish()
    knit(image, (kvm, amd, other), {"kvm": types.btf})
    image.finish()
    return image


def _tables(image: KernelImage) -> None:
    calls = [image.function(f"__x64_sys_{entry_points()[number]}") for number in range(SYSTEM_CALLS)]
    image.put_in("rodata", words(*calls), "sys_call_table")
    image.put_in("rodata", bytes(16), "behind_the_calls")
    gate = image.function("asm_exc_page_fault")
    one = struct.pack("<HHHHII", gate & 0xFFFF, 0x10, 0x8E00, gate >> 16 & 0xFFFF, gate >> 32, 0)
    table = image.put_in("rodata", one * 256, "idt_table", PAGE_SIZE)
    image.put_in("data", struct.pack("<HQ", 0xFFF, table), "idt_descr")
    name = image.put_in("rodata", b"exported_one\0", "__kstrtab_one")
    function = image.function("exported_one")
    start = image.put_in("rodata", bytes(12), "__start___ksymtab", 4)
    image.poke(start, struct.pack("<iii", function - start, name - start - 4, 0))
    image.name("__stop___ksymtab", start + 12, "r")


def _processes(image: KernelImage, kvm: Module, machine: kvm_builder.Machine) -> None:
    subscriptions = image.object("mmu_notifier_subscriptions", list__first=machine.notifier)
    tables = {name: kvm.symbols[f"kvm_{name}"][0] for name in ("chardev_ops", "vm_fops", "vcpu_fops", "device_fops")}
    files = files_of_a_process(
        image,
        (tables["chardev_ops"], 0),
        (tables["vm_fops"], machine.address),
        (tables["vcpu_fops"], machine.processor),
        (tables["device_fops"], machine.device),
        (image.function("pipe_fops_function"), 0x1234),
    )
    tasks = Tasks(image)
    init = tasks.process("systemd", [1], tasks.root, mm=memory_of_a_process(image))
    tasks.process("kthreadd", [2], tasks.root)
    mm = memory_of_a_process(image, subscriptions)
    qemu = tasks.process("qemu", [QEMU, QEMU + 1], init, mm=mm, files=files)
    tasks.knit()
    image.at |= {"mm": mm, "subscriptions": subscriptions}
    _processors(image, tasks.root, qemu, image.at[f"task qemu-{QEMU + 1}"], machine.processor)


def _processors(image: KernelImage, init: int, ready: int, running: int, loaded: int) -> None:
    idle = image.object("task_struct", comm=b"swapper/1")
    areas = [image.heap(b"\0" * _AREA) for _ in range(2)]
    image.put_in("data", struct.pack("<I", 2), "nr_cpu_ids")
    image.pointers("__per_cpu_offset", *areas)
    image.name("runqueues", _RUN_QUEUES, "A")
    node = image.types.offset("task_struct", "se.group_node")
    for area, idle_task, current, waiting in ((areas[0], init, running, [ready]), (areas[1], idle, idle, [])):
        queue = area + _RUN_QUEUES
        image.set("rq", queue, idle=idle_task, curr=current)
        image.link(queue + image.types.offset("rq", "cfs_tasks"), *(task + node for task in waiting))
    image.poke(areas[1] + 0x180, words(loaded))
    image.at |= {"rq 0": areas[0] + _RUN_QUEUES, "rq 1": areas[1] + _RUN_QUEUES, "idle 1": idle}
    image.at |= {"loaded 0": areas[0] + 0x180, "loaded 1": areas[1] + 0x180}


def _generated_code(image: KernelImage) -> None:
    """A BPF program with its image, a page of kprobe slots, a trampoline of a tracer, and the areas they are in."""
    for index in range(3):
        image.page(JIT + 2 * index * PAGE_SIZE, b"\xcc" * 64 + b"\x90\xc3" * 32, writable=False, executable=True)
    jit, slots, trampoline = (JIT + 2 * index * PAGE_SIZE for index in range(3))
    aux = image.object("bpf_prog_aux")
    program = image.types.size("bpf_prog")
    image.page(VMALLOC, bytes(program))
    image.set("bpf_prog", VMALLOC, pages=1, jited_len=64, bpf_func=jit + 64, aux=aux)
    image.member("bpf_prog_aux", aux, "prog", VMALLOC)
    symbol = image.object("bpf_ksym", start=jit + 64, end=jit + PAGE_SIZE, name=b"bpf_prog_test")
    image.link(image.pointers("bpf_kallsyms", 0, 0), symbol + image.types.offset("bpf_ksym", "lnode"))
    page = image.object("kprobe_insn_page", insns=slots)
    cache_of_slots = image.variable("kprobe_insn_slots", "kprobe_insn_cache")
    image.link(cache_of_slots + image.types.offset("kprobe_insn_cache", "pages"), page)
    ops = image.object("ftrace_ops", trampoline=trampoline, trampoline_size=128)
    image.pointers("ftrace_ops_list", ops)
    image.pointers("vmalloc_base", VMALLOC)
    areas = [
        image.object("vmap_area", va_start=start, va_end=start + 2 * PAGE_SIZE)
        for start in (VMALLOC, jit, slots, trampoline)
    ]
    node = image.object("vmap_node")
    image.pointers("vmap_nodes", node)
    image.put_in("data", struct.pack("<I", 1), "nr_vmap_nodes")
    head = node + image.types.offset("vmap_node", "busy.head")
    image.link(head, *(area + image.types.offset("vmap_area", "list") for area in areas))
    image.at |= {"bpf symbol": symbol, "slot page": page, "ftrace ops": ops, "bpf aux": aux, "vmap node": node}
    image.at |= {"jit": jit, "slots": slots, "trampoline": trampoline, "area": areas[1]}
