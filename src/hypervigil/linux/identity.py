"""What a kernel's descriptions say of it: claims by subject, for comparison.

Sources: VMCOREINFO (kernel/vmcore_info.c), kallsyms, BTF, ``linux_banner``, ``init_uts_ns``, the ELF notes, the
variable ``phys_base``, the page tables and the processors' registers.
"""

import hashlib
from collections.abc import Callable, Iterator

import drgn
import msgspec

from hypervigil.core.errors import EvidenceError, MissingDescription, MissingMemory
from hypervigil.core.evidence import Span
from hypervigil.core.facts import Gap
from hypervigil.core.units import PhysAddr
from hypervigil.decode.vmcoreinfo import VmcoreInfo
from hypervigil.linux.members import offset_of, text
from hypervigil.linux.processors import host_processors
from hypervigil.linux.system import System
from hypervigil.memory.kernel import Kernel
from hypervigil.memory.locate import START_KERNEL_MAP
from hypervigil.memory.pagetable import translate

_LINKED_AT = 0xFFFF_FFFF_8100_0000
_IMAGE_END = START_KERNEL_MAP + (1 << 30)
_BANNER = "Linux version "
_MAX_BANNER = 512
_MAX_NOTES = 4096
_GNU_BUILD_ID = 3
_ADDRESS_SPACE = 1 << 64
_CACHE_LINE = 64
_WORD_BITS = 64
_RECORD, _MEMBER, _MEMBER_OFFSET = 12, 12, 8  # struct btf_type; struct btf_member and its offset (uapi/linux/btf.h)
_DIRECT_MAP = {4: 0xFFFF_8880_0000_0000, 5: 0xFF11_0000_0000_0000}
"""Where the direct map begins without KASLR (Documentation/arch/x86/x86_64/mm.rst)."""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """One claim: `source` says that `subject` is `value`.

    Attributes:
        span: the bytes that say it; empty where it follows from the page tables as a whole.
        address: virtual address of these bytes; None for what is a rule and stands nowhere.
    """

    subject: str
    source: str
    value: str
    span: tuple[Span, ...] = ()
    address: int | None = None


def each_said(system: System) -> Iterator[Said | Gap]:
    """Every claim that can be read, beside the sources that cannot."""
    kernel = system.kernel
    sources: tuple[tuple[str, Callable[[Kernel], Iterator[Said | Gap]]], ...] = (
        ("VMCOREINFO", _vmcoreinfo),
        ("kallsyms", _symbols),
        ("linux_banner", _banner),
        ("init_uts_ns", _uts),
        ("kernel notes", _notes),
        ("page tables", _tables),
        ("BTF", _types),
        ("type layouts", _layouts),
    )
    for name, source in sources:
        try:
            yield from source(kernel)
        except EvidenceError as fault:
            yield Gap(name, str(fault))


def _vmcoreinfo(kernel: Kernel) -> Iterator[Said | Gap]:
    info, place = _kept(kernel)
    copies = [(info, place), *kernel.search.others]
    yield from _copies(kernel, copies)
    for sentence in info.contradictions:
        subject, span, at = f"VMCOREINFO: {sentence}", *_line(kernel, info, place, sentence.partition(" ")[0])
        yield Said(subject=subject, source="its first line", value="one value", span=span, address=at)
        yield Said(subject=subject, source="a later line", value="another value", span=span, address=at)

    def said(subject: str, value: str, key: str) -> Said:
        span, at = _line(kernel, info, place, key)
        return Said(subject=subject, source="VMCOREINFO", value=value, span=span, address=at)

    yield said("release", info.osrelease, "OSRELEASE")
    if info.build_id:
        yield said("build id", info.build_id, "BUILD-ID")
    if info.kernel_offset is not None:
        yield said("KASLR offset", f"{info.kernel_offset:#x}", "KERNELOFFSET")
    if "phys_base" in info.numbers:
        yield said("phys_base", f"{info.numbers['phys_base'] % _ADDRESS_SPACE:#x}", "NUMBER(phys_base)")
    for name, address in sorted(info.symbols.items()):
        if START_KERNEL_MAP <= address < _IMAGE_END:
            yield said(f"address of {name}", f"{address:#x}", f"SYMBOL({name})")


def _copies(kernel: Kernel, copies: list[tuple[VmcoreInfo, PhysAddr]]) -> Iterator[Said]:
    for copy, at in copies:
        digest = hashlib.sha256(copy.raw.encode("latin-1")).hexdigest()[:16]
        where = kernel.memory.spans(at, min(len(copy.raw), 64))
        yield Said(
            subject="text of VMCOREINFO",
            source=f"copy at {at:#x}",
            value=f"sha256 {digest}",
            span=where,
            address=_direct(kernel, at),
        )


def _line(kernel: Kernel, info: VmcoreInfo, place: PhysAddr, key: str) -> tuple[tuple[Span, ...], int]:
    """Where a line of VMCOREINFO stands, and the virtual address of its value."""
    at = max(0, info.raw.find(f"{key}="))
    end = info.raw.find("\n", at)
    span = kernel.memory.spans(PhysAddr(place + at), max(1, (end if end > at else at + 64) - at))
    return span, _direct(kernel, place + at + len(key) + 1)


def _direct(kernel: Kernel, physical: int) -> int:
    """Virtual address in the direct map of all memory, which KASLR moves (arch/x86/mm/kaslr.c)."""
    try:
        base = kernel.space.u64(kernel.symbols.address("page_offset_base"))
    except EvidenceError:
        base = _DIRECT_MAP[kernel.location.levels]
    return (base + physical) % _ADDRESS_SPACE


def _kept(kernel: Kernel) -> tuple[VmcoreInfo, PhysAddr]:
    if kernel.location.vmcoreinfo is None:
        raise MissingDescription("it was not found in the image")
    return kernel.location.vmcoreinfo


def _symbols(kernel: Kernel) -> Iterator[Said]:
    symbols = kernel.symbols
    known = kernel.location.vmcoreinfo
    for name in sorted(known[0].symbols if known else ()):
        address = symbols.find(name)
        if address is not None and START_KERNEL_MAP <= address < _IMAGE_END:
            yield _symbol(kernel, f"address of {name}", name, address)
    yield _symbol(kernel, "KASLR offset", "_text", symbols.address("_text") - _LINKED_AT)
    at = symbols.address("phys_base")
    value = kernel.space.u64(at)
    yield Said(subject="phys_base", source="the variable", value=f"{value:#x}", span=kernel.spans(at, 8), address=at)


def _symbol(kernel: Kernel, subject: str, name: str, value: int) -> Said:
    """What the symbol table says of a symbol, and where in its tables."""
    table = kernel.table
    if table is None or name not in table.names:
        return Said(subject=subject, source="kallsyms", value=f"{value:#x}")
    at = kernel.table_address(table.place_of(table.names.index(name)))
    try:
        span = kernel.spans(at, 4)
    except MissingMemory:
        span = ()
    return Said(subject=subject, source="kallsyms", value=f"{value:#x}", span=span, address=at)


def _banner(kernel: Kernel) -> Iterator[Said]:
    at = kernel.symbols.address("linux_banner")
    banner = kernel.space.text(at, _MAX_BANNER)
    if not banner.startswith(_BANNER):
        raise MissingDescription(f"at {at:#x} stands {banner[:32]!r}")
    release = banner.removeprefix(_BANNER).partition(" ")[0]
    yield Said(subject="release", source="linux_banner", value=release, span=kernel.spans(at, 64), address=at)


def _uts(kernel: Kernel) -> Iterator[Said]:
    thing = kernel.variable("init_uts_ns", "struct uts_namespace")
    at = kernel.symbols.address("init_uts_ns") + offset_of(thing.type_, "name.release")
    release = text(thing, "name.release")
    yield Said(subject="release", source="init_uts_ns", value=release, span=kernel.spans(at, 64), address=at)


def _notes(kernel: Kernel) -> Iterator[Said]:
    start = kernel.symbols.find("__start_notes")
    stop = kernel.symbols.find("__stop_notes")
    if start is None or stop is None or not 0 < stop - start <= _MAX_NOTES:
        raise MissingDescription("the notes' symbols were not found")
    data = kernel.space.read(start, stop - start)
    at = 0
    while at + 12 <= len(data):
        name, size, kind = (int.from_bytes(data[at + i : at + i + 4], "little") for i in (0, 4, 8))
        body = at + 12 + -(-name // 4) * 4
        if kind == _GNU_BUILD_ID and data[at + 12 : at + 16] == b"GNU\0":
            yield Said(
                subject="build id",
                source="kernel notes",
                value=data[body : body + size].hex(),
                span=kernel.spans(start + body, max(1, min(size, 64))),
                address=start + body,
            )
        at = body + -(-size // 4) * 4


def _tables(kernel: Kernel) -> Iterator[Said | Gap]:
    anchor = kernel.symbols.address("_stext")
    physical = kernel.space.physical(anchor)
    base = (physical - (anchor - START_KERNEL_MAP)) % _ADDRESS_SPACE
    top = kernel.root_address
    yield Said(subject="phys_base", source="page tables", value=f"{base:#x}", address=top)
    subject = "physical address of _stext"
    yield Said(subject=subject, source="swapper_pg_dir", value=f"{physical:#x}", address=top)
    for cpu, root in host_processors(kernel):
        found = translate(kernel.memory, root, kernel.location.levels, anchor).address
        where = _direct(kernel, root)
        yield Said(subject=subject, source=f"CR3 of CPU {cpu}", value=f"{found:#x}", address=where)


def _types(kernel: Kernel) -> Iterator[Said]:
    """Sizes and offsets that both VMCOREINFO and BTF state."""
    btf = kernel.btf
    known = kernel.location.vmcoreinfo
    if known is None or btf.end_id <= 1:
        return
    info, place = known
    for name, size in sorted(info.sizes.items()):
        kind = _type(kernel, name)
        if kind is not None and kind.size:
            span, at = _line(kernel, info, place, f"SIZE({name})")
            yield Said(subject=f"size of {name}", source="VMCOREINFO", value=str(size), span=span, address=at)
            yield _typed(kernel, f"size of {name}", str(kind.size), name)
    for path, offset in sorted(info.offsets.items()):
        name, _, member = path.partition(".")
        kind = _type(kernel, name)
        if kind is not None:
            span, at = _line(kernel, info, place, f"OFFSET({path})")
            yield Said(subject=f"offset of {path}", source="VMCOREINFO", value=str(offset), span=span, address=at)
            yield _typed(kernel, f"offset of {path}", _offset(kind, member), name)


def _typed(kernel: Kernel, subject: str, value: str, name: str, inside: int = 0) -> Said:
    """What type information says of a structure, and where it describes that, `inside` bytes from there on."""
    record = kernel.catalogue.record(name.removeprefix("struct ").removeprefix("union "))
    if record is None:
        return Said(subject=subject, source="BTF", value=value)
    low, high = record
    try:
        span = kernel.spans(low, high - low)
    except MissingMemory:
        span = ()
    return Said(subject=subject, source="BTF", value=value, span=span, address=low + inside)


def _type(kernel: Kernel, name: str) -> drgn.Type | None:
    for spelled in (f"struct {name}", name):
        try:
            kind = kernel.type(spelled)
        except MissingDescription:
            continue
        while kind.kind is drgn.TypeKind.TYPEDEF:
            kind = kind.type
        return kind
    return None


def _offset(kind: drgn.Type, member: str) -> str:
    try:
        return str(drgn.offsetof(kind, member))
    except (LookupError, TypeError, ValueError, SyntaxError):
        return "no such member"


def _layouts(kernel: Kernel) -> Iterator[Said]:
    """Every structure that was used: its members as BTF places them, and as a compiler would.

    Members follow each other without overlapping, each aligned, none further away than alignment can push it.
    """
    for name, kind in sorted(kernel.used_types.items()):
        if kind.kind is not drgn.TypeKind.STRUCT or not kind.members:
            continue
        subject = f"layout of {name}"
        fault = _layout_fault(kind)
        if fault is not None:
            yield _typed(kernel, subject, fault[0], name, _RECORD + _MEMBER * fault[1] + _MEMBER_OFFSET)
        else:
            yield Said(subject=subject, source="BTF", value="as a compiler makes it")
        yield Said(subject=subject, source="the rules of C", value="as a compiler makes it")


def _layout_fault(kind: drgn.Type) -> tuple[str, int] | None:
    """What no compiler would do, in words, and the index of the member that is misplaced; None if nothing.

    Where two members overlap, the first is misplaced if there is room before it that alignment does not explain.
    """
    end = room = 0
    for index, member in enumerate(kind.members or ()):
        start = member.bit_offset
        try:
            size = member.bit_field_size or 8 * _size(member.type)
        except (EvidenceError, ValueError) as fault:
            return f"the type of member {member.name or 'without a name'} cannot be: {fault}", index
        if start < end:
            words = f"member {member.name or 'without a name'} overlaps the one before it"
            return words, index - (room >= _WORD_BITS)
        if start - end > 8 * _CACHE_LINE:
            return f"{(start - end) // 8} bytes of nothing before member {member.name or 'without a name'}", index
        end, room = start + size, start - end
    if kind.size is not None and end > 8 * kind.size:
        return f"its members end at {end // 8}, it has {kind.size} bytes", len(kind.members or ()) - 1
    return None


def _size(kind: drgn.Type) -> int:
    try:
        return int(drgn.sizeof(kind))
    except TypeError:
        return 0
