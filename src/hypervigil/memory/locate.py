"""Where in physical memory the kernel is, from descriptions that the image carries.

Two ways, the second only where the first gives nothing:

1. VMCOREINFO. The kernel keeps its text at the start of a page (``vmcoreinfo_data``) and in an ELF note at the start
   of another (24 bytes further on), so two words a page tell. It names the top-level page table and the distance
   between virtual and physical addresses. A candidate is kept when the tables map themselves where it says.
2. ``linux_banner``. The banner's text stands in the kernel's read-only data; a symbol table within 64 MiB of it says
   at which virtual address, and with that where ``swapper_pg_dir`` is. Kept under the same condition.

Every candidate is reported with the reason why it was kept or rejected.

Source: Linux kernel/vmcore_info.c (crash_core.c before 6.9), arch/x86/include/asm/page_64_types.h.
"""

from collections.abc import Iterator

import msgspec
import numpy as np

from hypervigil.core.errors import DecodeError, EvidenceError
from hypervigil.core.report import Candidate
from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.decode.kallsyms import KallsymsTable, search_kallsyms
from hypervigil.decode.vmcoreinfo import VmcoreInfo, decode_vmcoreinfo
from hypervigil.memory.holes import view_over_holes
from hypervigil.memory.pagetable import translate
from hypervigil.memory.reader import Reader
from hypervigil.memory.stream import each_chunk, range_of

START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000
"""``__START_KERNEL_map``: the kernel's image is mapped from here, plus ``phys_base``."""

_ADDRESS_SPACE = 1 << 64
_FIRST_WORD = int.from_bytes(b"OSRELEAS", "little")
_WORDS = (0, 3)
_NOTE_HEADER = 24
_BANNER = b"Linux version "
_CHUNK = 1 << 22
_AROUND = 1 << 26
_MAX_BANNERS = 64
_MAX_CANDIDATES = 64
_MAX_WINDOWS = 4


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """Where the kernel is.

    Attributes:
        root: physical address of ``swapper_pg_dir``.
        levels: levels of its page tables, 4 or 5.
        phys_base: physical address of the kernel's image map, modulo 2**64, as the kernel's variable holds it.
        vmcoreinfo: the kept VMCOREINFO, with its physical address.
        symbols: a symbol table that was decoded on the way, with virtual addresses.
        symbols_at: physical address of the buffer that it was decoded from.
    """

    root: PhysAddr
    levels: int
    phys_base: int
    vmcoreinfo: tuple[VmcoreInfo, PhysAddr] | None = None
    symbols: KallsymsTable | None = None
    symbols_at: PhysAddr = PhysAddr(0)

    def image_address(self, physical: int) -> VirtAddr:
        """Virtual address of a byte of the kernel's image: one piece, mapped from ``__START_KERNEL_map`` on."""
        return VirtAddr((physical - self.phys_base + START_KERNEL_MAP) % _ADDRESS_SPACE)


class Search(msgspec.Struct, frozen=True):
    """What was found, beside every candidate. `others` are further VMCOREINFO texts that decode."""

    location: Location | None
    candidates: tuple[Candidate, ...]
    others: tuple[tuple[VmcoreInfo, PhysAddr], ...]


def locate_kernel(memory: Reader) -> Search:
    """Find the kernel; `location` is None when no description was good enough."""
    candidates: list[Candidate] = []
    infos: list[tuple[VmcoreInfo, PhysAddr]] = []
    location = None
    for address in _each_vmcoreinfo(memory):
        where = f"physical {address:#x}"
        try:
            info = decode_vmcoreinfo(_up_to(memory, address, PAGE_SIZE - address % PAGE_SIZE))
            infos.append((info, address))
            found = _from_vmcoreinfo(memory, info, address)
        except EvidenceError as fault:
            candidates.append(Candidate(what="VMCOREINFO", where=where, kept=False, reason=str(fault)))
            continue
        kept = location is None
        reason = "its page tables map themselves" if kept else "a second copy; compared with the first"
        candidates.append(Candidate(what="VMCOREINFO", where=where, kept=kept, reason=reason))
        location = location or found
    if location is None:
        location, more = _by_banner(memory)
        candidates += more
    kept_at = location.vmcoreinfo[1] if location and location.vmcoreinfo else None
    return Search(location, tuple(candidates), tuple(pair for pair in infos if pair[1] != kept_at))


def _each_vmcoreinfo(memory: Reader) -> Iterator[PhysAddr]:
    """Physical addresses of texts that begin like VMCOREINFO, at the two places in a page where the kernel puts it.

    Ascending, so that a recording, which comes in other pieces, gives them in the same order.
    """
    count = 0
    for start, chunk in each_chunk(memory, _CHUNK):
        pages = np.frombuffer(chunk, "<u8", count=len(chunk) // PAGE_SIZE * (PAGE_SIZE // 8)).reshape(-1, 512)
        for page, column in np.argwhere(pages[:, _WORDS] == _FIRST_WORD).tolist():
            count += 1
            if count > _MAX_CANDIDATES:
                return
            yield PhysAddr(start + page * PAGE_SIZE + 8 * _WORDS[column])


def _from_vmcoreinfo(memory: Reader, info: VmcoreInfo, address: PhysAddr) -> Location:
    top = info.symbols.get("swapper_pg_dir", info.symbols.get("init_top_pgt"))
    base = info.numbers.get("phys_base")
    if top is None or base is None:
        raise DecodeError("VMCOREINFO", "no swapper_pg_dir or phys_base, as on x86-64")
    levels = 5 if info.numbers.get("pgtable_l5_enabled") == 1 else 4
    root = _physical(top, base)
    _require_self_map(memory, root, levels, top)
    return Location(root=root, levels=levels, phys_base=base % _ADDRESS_SPACE, vmcoreinfo=(info, address))


class _Window(msgspec.Struct, frozen=True, eq=False):
    """A stretch of memory around a banner, with the symbol table that was found in it."""

    low: PhysAddr
    high: int
    table: KallsymsTable | None
    names: dict[str, tuple[int, ...]]


def _by_banner(memory: Reader) -> tuple[Location | None, list[Candidate]]:
    candidates: list[Candidate] = []
    windows: list[_Window] = []
    for banner in _each_banner(memory):
        where = f"physical {banner:#x}"
        window = next((w for w in windows if w.low <= banner < w.high), None)
        if window is None:
            if len(windows) == _MAX_WINDOWS:
                reason = f"more than {_MAX_WINDOWS} places to search"
                candidates.append(Candidate(what="linux_banner", where=where, kept=False, reason=reason))
                break
            window = _window(memory, banner)
            windows.append(window)
        found, reason = _anchor(memory, window, banner)
        candidates.append(Candidate(what="linux_banner", where=where, kept=found is not None, reason=reason))
        if found is not None:
            return found, candidates
    return None, candidates


def _each_banner(memory: Reader) -> Iterator[PhysAddr]:
    count = 0
    for start, chunk in each_chunk(memory, _CHUNK):
        data = bytes(chunk)
        at = data.find(_BANNER)
        while at >= 0 and count < _MAX_BANNERS:
            if at % PAGE_SIZE <= PAGE_SIZE - len(_BANNER):  # across pages it may be cut, here or in a recording
                count += 1
                yield PhysAddr(start + at)
            at = data.find(_BANNER, at + 1)


def _window(memory: Reader, banner: PhysAddr) -> _Window:
    low = PhysAddr(max(0, banner - _AROUND) & ~(PAGE_SIZE - 1))
    view = view_over_holes(memory, low, banner + _AROUND)
    tables = search_kallsyms(view).tables
    table = tables[0] if tables else None
    return _Window(low, low + len(view), table, {} if table is None else table.by_name())


def _anchor(memory: Reader, window: _Window, banner: PhysAddr) -> tuple[Location | None, str]:
    """Relate virtual and physical addresses by the banner, and test the relation on the page tables."""
    table = window.table
    if table is None:
        return None, "no symbol table near"
    if "linux_banner" not in window.names:
        return None, "the symbol table near it has no linux_banner"
    stored = int(table.addresses[window.names["linux_banner"][0]])
    if table.base_lost:
        return _anchor_by_root(memory, window, table, banner - stored)
    if not table.anchored:
        if stored != banner - window.low:
            return None, "the symbol table near it places linux_banner elsewhere"
        return _anchor_by_root(memory, window, table, window.low)
    return _anchor_by_tables(memory, window, table, banner - (stored - START_KERNEL_MAP))


def _anchor_by_tables(memory: Reader, window: _Window, table: KallsymsTable, base: int) -> tuple[Location | None, str]:
    """Test ``phys_base`` on the page tables that a table with absolute addresses names."""
    for top in ("init_top_pgt", "swapper_pg_dir"):
        for position in window.names.get(top, ()):
            found = _try_root(memory, VirtAddr(int(table.addresses[position])), base)
            if found is not None:
                placed = msgspec.structs.replace(found, symbols=table, symbols_at=window.low)
                return placed, "its symbol table leads to page tables that fit"
    return None, "no page table that maps itself where the symbol table says"


def _anchor_by_root(memory: Reader, window: _Window, table: KallsymsTable, zero: int) -> tuple[Location | None, str]:
    """Place a table without absolute addresses: KASLR moves the kernel by whole 2 MiB, so few bases are possible.

    Args:
        memory: the memory.
        window: where the table was found.
        table: the table.
        zero: physical address of that from which its addresses count.
    """
    names = window.names
    text = int(table.addresses[names["_text"][0]]) if "_text" in names else 0
    tops = [int(table.addresses[at]) for at in names.get("init_top_pgt", names.get("swapper_pg_dir", ()))]
    for slot in range(512):
        base = VirtAddr((START_KERNEL_MAP + slot * (1 << 21) - text) % _ADDRESS_SPACE)
        for top in tops:
            address = VirtAddr((top + base) % _ADDRESS_SPACE)
            found = _try_root(memory, address, zero - (base - START_KERNEL_MAP))
            if found is not None:
                placed = msgspec.structs.replace(found, symbols=table.rebased(base), symbols_at=window.low)
                return placed, "its symbol table leads to page tables that fit"
    return None, "no base address at which the page tables map themselves"


def _try_root(memory: Reader, top: VirtAddr, base: int) -> Location | None:
    for levels in (4, 5):
        root = _physical(top, base)
        try:
            _require_self_map(memory, root, levels, top)
        except EvidenceError:
            continue
        return Location(root=root, levels=levels, phys_base=base % _ADDRESS_SPACE)
    return None


def _require_self_map(memory: Reader, root: PhysAddr, levels: int, top: VirtAddr) -> None:
    """Refuse tables that do not map themselves where they are said to be."""
    mapped = translate(memory, root, levels, top).address
    if mapped != root:
        raise DecodeError("page tables", f"they map swapper_pg_dir to {mapped:#x}, not to {root:#x}")


def _physical(address: VirtAddr, phys_base: int) -> PhysAddr:
    return PhysAddr((address - START_KERNEL_MAP + phys_base) % _ADDRESS_SPACE)


def _up_to(memory: Reader, address: PhysAddr, size: int) -> bytes:
    """Read `size` bytes, or as many as there are."""
    return memory.read(address, min(size, range_of(memory, address).end - address))
