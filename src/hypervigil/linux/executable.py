"""Who may own executable memory besides the kernel's text and its modules.

- BPF programs, trampolines and dispatchers: ``bpf_kallsyms`` (kernel/bpf/core.c) lists those that were loaded by the
  system call; programs that the kernel makes for itself (socket filters, seccomp) are found by their
  ``struct bpf_prog``, each alone at the start of a vmalloc area, whose auxiliary part must point back.
- Trampolines of BPF programs that serve as operations of the kernel (congestion control, schedulers): the images of the
  ``struct bpf_struct_ops_map`` in ``map_idr``. Since 6.13 they have symbols as well (7c8ce4ffb684 "bpf: Add kernel
  symbol for struct_ops trampoline").
- Slots of kprobes: ``kprobe_insn_slots``, ``kprobe_optinsn_slots`` (kernel/kprobes.c).
- Trampolines of tracers: ``ftrace_ops_trampoline_list``, ``ftrace_ops_list`` (kernel/trace/ftrace.c).
- The real mode trampoline (arch/x86/realmode/init.c, set_real_mode_permissions).
- Thunks of modules against indirect target selection: ``mod->its_page_array`` (872df34d7c51 "x86/its: Use dynamic
  thunks for indirect branches", 6.15 and stable kernels).
- The code that starts the next kernel, or the one for a crash, where one is loaded: ``kexec_image->control_code_page``.
  It is prepared when that is loaded since "x86/kexec: Mark relocate_kernel page as ROX instead of RWX" (6.14).
- Hyper-V's hypercall page: ``hv_hypercall_pg``.
"""

from collections.abc import Callable, Iterator

import msgspec

from hypervigil.core.errors import EvidenceError, MissingDescription
from hypervigil.core.facts import Gap, Observed
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.linux.lists import walk_chain, walk_list
from hypervigil.linux.members import element, has, length, member, number, offset_of, text
from hypervigil.linux.modules import Module
from hypervigil.linux.vmap import VmapArea
from hypervigil.linux.xarray import xarray_entries
from hypervigil.memory.kernel import Kernel

_REWRITTEN = ("bpf_trampoline_", "bpf_dispatcher_")
_CHUNK = 64  # BPF_PROG_CHUNK_SIZE
_MAX_IMAGE = 1 << 24
_MAX_PAGES = 4096
_MOST_FRAMES = 1 << 40
_PAGE_STRUCT = 64
_VMEMMAP, _DIRECT_MAP = 0xFFFF_EA00_0000_0000, 0xFFFF_8880_0000_0000
"""Where these are without CONFIG_DYNAMIC_MEMORY_LAYOUT."""


class Claim(msgspec.Struct, frozen=True, order=True):
    """A range of executable memory that somebody claims: half-open ``[start, end)``, virtual."""

    start: int
    end: int
    owner: str
    kind: str


def executable_claims(kernel: Kernel, areas: tuple[VmapArea, ...], modules: tuple[Module, ...]) -> Observed[Claim]:
    """Every claim that could be read, sorted, beside the sources that could not.

    A source that this kernel does not have at all (no BPF, no kprobes) is no gap.
    """
    claims: list[Claim] = []
    gaps: list[Gap] = []
    sources: dict[str, Callable[[], Iterator[Claim]]] = {
        "BPF symbols": lambda: _bpf_symbols(kernel),
        "BPF programs": lambda: _bpf_programs(kernel, areas),
        "BPF operations": lambda: _bpf_operations(kernel),
        "kprobe slots": lambda: _kprobe_slots(kernel),
        "ftrace trampolines": lambda: _ftrace_trampolines(kernel),
        "real mode trampoline": lambda: _real_mode(kernel),
        "indirect target thunks": lambda: _indirect_thunks(kernel, modules),
        "code of the next kernel": lambda: _control_pages(kernel),
        "hypercall page": lambda: _hypercall_page(kernel),
    }
    for name, source in sources.items():
        try:
            claims += source()
        except EvidenceError as fault:
            gaps.append(Gap(name, str(fault)))
    return Observed(tuple(sorted(set(claims))), tuple(gaps))


def _bpf_symbols(kernel: Kernel) -> Iterator[Claim]:
    head = kernel.symbols.find("bpf_kallsyms")
    if head is None:
        return
    walked = walk_list(kernel.space, head, offset_of(kernel.type("struct bpf_ksym"), "lnode"), "bpf_kallsyms")
    for address in walked.items:
        symbol = kernel.object("struct bpf_ksym", address)
        start, end = number(symbol, "start"), number(symbol, "end")
        if 0 < end - start <= _MAX_IMAGE:
            name = text(symbol, "name")
            kind = "BPF trampoline" if name.startswith(_REWRITTEN) else "jit"
            yield Claim(start - start % _CHUNK, end, f"BPF {name}", kind)
    _refuse_gaps(walked)


def _bpf_programs(kernel: Kernel, areas: tuple[VmapArea, ...]) -> Iterator[Claim]:
    kind = kernel.type("struct bpf_prog")
    aux, entry = offset_of(kind, "aux"), offset_of(kind, "bpf_func")
    back = offset_of(kernel.type("struct bpf_prog_aux"), "prog")
    for area in areas:
        try:
            holder = kernel.space.u64(VirtAddr(area.start + aux))
            if kernel.space.u64(VirtAddr(holder + back)) != area.start:
                continue
            program = kernel.object("struct bpf_prog", area.start)
            start, size = kernel.space.u64(VirtAddr(area.start + entry)), number(program, "jited_len")
        except EvidenceError:
            continue
        if 0 < size <= _MAX_IMAGE:
            yield Claim(*_bpf_image(kernel, start, size), f"BPF program at {area.start:#x}", "jit")


def _bpf_image(kernel: Kernel, start: int, size: int) -> tuple[int, int]:
    """Range of a program's image: in a shared pack from its chunk on, else from its page on.

    ``struct bpf_binary_header`` counts pages until 5.17 and bytes since ed2d9e1a26cc "bpf: Use size instead of pages
    in bpf_binary_header" (5.18).
    """
    if has(kernel.type("struct bpf_binary_header"), "pages"):
        return start & ~(PAGE_SIZE - 1), start + size
    return start - start % _CHUNK, start + size


def _bpf_operations(kernel: Kernel) -> Iterator[Claim]:
    """One image of a page until 6.8, several since 187e2af05abe "bpf: struct_ops supports more than one page" (6.9)."""
    wanted, maps = kernel.symbols.find("bpf_struct_ops_map_ops"), kernel.symbols.find("map_idr")
    if wanted is None or maps is None:
        return
    walked = xarray_entries(kernel, number(kernel.object("struct idr", maps), "idr_rt.xa_head"), "BPF maps")
    for address in walked.items:
        if number(kernel.object("struct bpf_map", address), "ops") != wanted:
            continue
        thing = kernel.object("struct bpf_struct_ops_map", address)
        if has(thing, "image"):
            images = [number(thing, "image")]
        else:
            pages = member(thing, "image_pages")
            images = [number(element(pages, i)) for i in range(min(number(thing, "image_pages_cnt"), length(pages)))]
        for start in images:
            if start:
                yield Claim(start, start + PAGE_SIZE, f"BPF operations of map at {address:#x}", "BPF trampoline")
    _refuse_gaps(walked)


def _kprobe_slots(kernel: Kernel) -> Iterator[Claim]:
    for name in ("kprobe_insn_slots", "kprobe_optinsn_slots"):
        head = kernel.symbols.find(name)
        if head is None:
            continue
        pages = head + offset_of(kernel.type("struct kprobe_insn_cache"), "pages")
        offset = offset_of(kernel.type("struct kprobe_insn_page"), "list")
        walked = walk_list(kernel.space, pages, offset, name)
        for address in walked.items:
            start = number(kernel.object("struct kprobe_insn_page", address), "insns")
            yield Claim(start, start + PAGE_SIZE, name, "trampoline")
        _refuse_gaps(walked)


def _ftrace_trampolines(kernel: Kernel) -> Iterator[Claim]:
    kind = kernel.type("struct ftrace_ops")
    found: list[int] = []
    head = kernel.symbols.find("ftrace_ops_trampoline_list")
    if head is not None:
        walked = walk_list(kernel.space, head, offset_of(kind, "list"), "ftrace_ops_trampoline_list")
        found += walked.items
        _refuse_gaps(walked)
    first = kernel.symbols.find("ftrace_ops_list")
    if first is not None:
        chain = walk_chain(kernel.space, kernel.space.u64(first), offset_of(kind, "next"), "ftrace_ops_list")
        found += chain.items
        _refuse_gaps(chain)
    for address in found:
        ops = kernel.object("struct ftrace_ops", address)
        start, size = number(ops, "trampoline"), number(ops, "trampoline_size")
        if start and 0 < size <= _MAX_IMAGE:
            # alloc_tramp takes whole pages and leaves what was in them behind the trampoline
            end = -(-(start + size) // PAGE_SIZE) * PAGE_SIZE
            yield Claim(start, end, f"ftrace trampoline of ops at {address:#x}", "trampoline")


def _real_mode(kernel: Kernel) -> Iterator[Claim]:
    header_at = kernel.symbols.find("real_mode_header")
    if header_at is None:
        return
    header = kernel.space.u64(header_at)
    if not header:
        return
    thing = kernel.object("struct real_mode_header", header)
    text_start, ro_end = number(thing, "text_start"), number(thing, "ro_end")
    base = header & ~(PAGE_SIZE - 1)
    start = base + text_start - kernel.space.physical(VirtAddr(base))
    size = -(-ro_end // PAGE_SIZE) * PAGE_SIZE - text_start
    if 0 < size <= _MAX_IMAGE:
        yield Claim(start, start + size, "real mode trampoline", "trampoline")


def _indirect_thunks(kernel: Kernel, modules: tuple[Module, ...]) -> Iterator[Claim]:
    for module in modules:
        thing = kernel.object("struct module", module.address)
        if not has(thing.type_, "its_page_array"):
            return
        pages, count = number(thing, "its_page_array"), number(thing, "its_num_pages")
        if count > _MAX_PAGES:
            raise MissingDescription(f"module {module.name} has {count} pages of thunks")
        for index in range(count):
            start = kernel.space.u64(VirtAddr(pages + 8 * index))
            yield Claim(start, start + PAGE_SIZE, f"thunks of {module.name}", "trampoline")


def _control_pages(kernel: Kernel) -> Iterator[Claim]:
    for name in ("kexec_image", "kexec_crash_image"):
        variable = kernel.symbols.find(name)
        image = 0 if variable is None else kernel.space.u64(variable)
        if image:
            start = _address_of_page(kernel, number(kernel.object("struct kimage", image), "control_code_page"))
            yield Claim(start, start + PAGE_SIZE, f"{name}, code that starts the next kernel", "trampoline")


def _address_of_page(kernel: Kernel, page: int) -> int:
    """Where the memory that a ``struct page`` stands for is in the direct map (asm/pgtable_64.h, asm/page_64.h)."""
    size = kernel.type("struct page").size or _PAGE_STRUCT
    map_of_pages, direct_map = (
        default if (variable := kernel.symbols.find(name)) is None else kernel.space.u64(variable)
        for name, default in (("vmemmap_base", _VMEMMAP), ("page_offset_base", _DIRECT_MAP))
    )
    number_of_page, rest = divmod(page - map_of_pages, size)
    if rest or not 0 <= number_of_page < _MOST_FRAMES:
        raise MissingDescription(f"{page:#x} is no struct page")
    return direct_map + number_of_page * PAGE_SIZE


def _hypercall_page(kernel: Kernel) -> Iterator[Claim]:
    variable = kernel.symbols.find("hv_hypercall_pg")
    page = 0 if variable is None else kernel.space.u64(variable)
    if page:
        yield Claim(page, page + PAGE_SIZE, "hypercall page", "trampoline")


def _refuse_gaps(walked: Observed[int]) -> None:
    """A claim list that could not be walked to its end is a missing source, not a short one."""
    if walked.gaps:
        raise MissingDescription(str(walked.gaps[0]))
