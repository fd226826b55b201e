"""The kernel of an image, opened: its address space, symbols and types, and how each was come by.

Nothing outside the image is needed. Each description may be missing; then `symbols`, `types` or `vmcoreinfo` raise
`MissingDescription` when asked, and whatever depends on them becomes unknown.
"""

from collections.abc import Iterator, Mapping

import drgn
import numpy as np

from hypervigil.core.errors import DecodeError, EvidenceError, MissingDescription, UnsupportedEvidence
from hypervigil.core.evidence import Span
from hypervigil.core.report import Candidate
from hypervigil.core.units import VirtAddr
from hypervigil.decode.btf import Btf
from hypervigil.decode.btf_sections import MAX_SIZE as MAX_BTF
from hypervigil.decode.kallsyms import (
    KallsymsTable,
    NamesHint,
    decode_kallsyms,
    search_kallsyms,
    token_tables_at,
)
from hypervigil.decode.kallsyms_holes import Holes
from hypervigil.decode.vmcoreinfo import VmcoreInfo
from hypervigil.memory.foreign import architecture_of, foreign_system
from hypervigil.memory.holes import view_over_holes
from hypervigil.memory.kallsyms import completed, symbols_of
from hypervigil.memory.locate import START_KERNEL_MAP, Location, Search, locate_kernel
from hypervigil.memory.reader import Reader
from hypervigil.memory.space import AddressSpace
from hypervigil.memory.symbols import Symbols
from hypervigil.memory.types import TypeCatalogue

_KERNEL_IMAGE_SIZE = 1 << 30
_SCAN = 1 << 26
_BTF_MAGIC = b"\x9f\xeb\x01\x00"


class Kernel:
    """An opened kernel.

    Attributes:
        memory: the physical memory.
        space: the kernel's virtual memory.
        location: where the kernel was found.
        search: the search that found it, with its candidates.
        program: drgn's view; its memory is `space`, its types are `catalogue`.
        catalogue: the types.
        table: the decoded symbol table that `symbols` are from; None if they are from elsewhere.
    """

    def __init__(self, memory: Reader, search: Search, location: Location) -> None:
        self.memory = memory
        self.search = search
        self.location = location
        self.space = AddressSpace(memory, location.root, location.levels)
        self.candidates = list(search.candidates)
        self.program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
        self.program.add_memory_segment(0, (1 << 64) - 1, self._read_for_drgn, physical=False)
        self.catalogue = TypeCatalogue(self.program)
        self._types: dict[str, drgn.Type] = {}
        self._symbols: Symbols | None = None
        self._btf: Btf | None = None
        self.table: KallsymsTable | None = None
        self._table_at = VirtAddr(0)
        self.why_no_symbols = "kallsyms was not found in the image"
        self.why_no_types = "BTF was not found in the image"

    @property
    def vmcoreinfo(self) -> VmcoreInfo:
        """The kept VMCOREINFO.

        Raises:
            MissingDescription: there is none.
        """
        if self.location.vmcoreinfo is None:
            raise MissingDescription("VMCOREINFO was not found in the image")
        return self.location.vmcoreinfo[0]

    @property
    def symbols(self) -> Symbols:
        """The kernel's symbols.

        Raises:
            MissingDescription: no symbol table was found.
        """
        if self._symbols is None:
            raise MissingDescription(self.why_no_symbols)
        return self._symbols

    @property
    def btf(self) -> Btf:
        """The kernel's own types.

        Raises:
            MissingDescription: none were found.
        """
        if self._btf is None:
            raise MissingDescription(self.why_no_types)
        return self._btf

    @property
    def rests_on(self) -> tuple[str, ...]:
        """Names of the descriptions in use, for `Fact.rests_on`."""
        found = ["page tables in the image"]
        if self.location.vmcoreinfo is not None:
            found.append("VMCOREINFO in the image")
        if self._symbols is not None:
            found.append(self._symbols.source)
        return tuple(sorted((*found, *self.catalogue.sources)))

    @property
    def used_types(self) -> dict[str, drgn.Type]:
        """Every type that was asked for by name so far."""
        return dict(self._types)

    def use_symbols(self, symbols: Symbols, table: KallsymsTable | None = None, table_at: int = 0) -> None:
        """Take a symbol table as the kernel's; `table_at` is the virtual address from which its ranges count."""
        self._symbols = symbols
        self.table = table
        self._table_at = VirtAddr(table_at)

    def table_address(self, offset: int) -> VirtAddr:
        """Virtual address of an offset in the buffer that `table` was decoded from."""
        return VirtAddr(self._table_at + offset)

    @property
    def root_address(self) -> VirtAddr:
        """Virtual address of ``swapper_pg_dir``, which lies in the kernel's image."""
        return self.location.image_address(self.location.root)

    def use_types(self, btf: Btf, source: str, at: int | None = None) -> None:
        """Take a BTF as the kernel's; `at` is its virtual address, None if it is not from memory."""
        self._btf = btf
        self.catalogue.add(source, btf, at)

    def type(self, name: str) -> drgn.Type:
        """A type by its C name, such as ``struct module``.

        Raises:
            MissingDescription: no BTF has it.
        """
        found = self._types.get(name)
        if found is None:
            try:
                found = self._types[name] = self.program.type(name)
            except LookupError as fault:
                why = "" if self._btf is not None else f"; {self.why_no_types}"
                raise MissingDescription(f"type {name} was not found{why}") from fault
        return found

    def object(self, type_name: str, address: int) -> drgn.Object:
        """The object of a type at a virtual address; nothing is read yet."""
        return drgn.Object(self.program, self.type(type_name), address=address)

    def variable(self, symbol: str, type_name: str) -> drgn.Object:
        """The object of a type at a symbol."""
        return self.object(type_name, self.symbols.address(symbol))

    def spans(self, address: int, size: int) -> tuple[Span, ...]:
        """Where the bytes at a virtual address stand in the evidence."""
        return self.space.spans(VirtAddr(address), size)

    def _read_for_drgn(self, address: int, count: int, _offset: int, _physical: bool) -> bytes:  # noqa: FBT001 - drgn's
        return self.space.read(VirtAddr(address), count)


def open_kernel(memory: Reader) -> Kernel:
    """Find and open the kernel in physical memory.

    Raises:
        MissingDescription: neither VMCOREINFO nor a symbol table leads to page tables that fit.
        UnsupportedEvidence: the memory is of another architecture or system, named.
    """
    search = locate_kernel(memory)
    if search.location is None:
        _refuse_foreign(memory, search)
        raise MissingDescription(_why_not_located(search))
    kernel = Kernel(memory, search, search.location)
    _open_symbols(kernel)
    _open_types(kernel)
    return kernel


def _refuse_foreign(memory: Reader, search: Search) -> None:
    """Name the machine or system, if it is known to be another than x86-64 Linux."""
    for info, _ in search.others:
        machine = architecture_of(info)
        if machine:
            raise UnsupportedEvidence(f"memory of Linux {info.osrelease} on {machine}; only x86-64 hosts are read")
    system = foreign_system(memory)
    if system:
        raise UnsupportedEvidence(f"memory of a {system} machine; only memory of x86-64 Linux hosts is read")


def _why_not_located(search: Search) -> str:
    tried = "; ".join(f"{c.what} at {c.where}: {c.reason}" for c in search.candidates[:4])
    return f"no kernel was found in the image ({tried or 'no VMCOREINFO and no Linux banner'})"


def _open_symbols(kernel: Kernel) -> None:
    info = kernel.location.vmcoreinfo
    told = {} if info is None else info[0].symbols
    for how, attempt in (("by the search for the kernel", _already), ("by VMCOREINFO", _hinted), ("by scan", _scanned)):
        for found, where, start in attempt(kernel):
            try:
                table = completed(_sound(found), kernel.root_address, told)
            except EvidenceError as fault:
                kernel.candidates.append(Candidate(what="kallsyms", where=where, kept=False, reason=str(fault)))
                continue
            lost = "".join(f"; {one.text}" for one in table.contradictions if one.lost)
            reason = f"{len(table.names):,} symbols, found {how}; {table.layout}{lost}"
            kernel.candidates.append(Candidate(what="kallsyms", where=where, kept=True, reason=reason))
            kernel.use_symbols(symbols_of(table, "kallsyms in the image"), table, start)
            return


def _sound(found: KallsymsTable | str) -> KallsymsTable:
    if isinstance(found, str):
        raise MissingDescription(found)
    return found


Attempt = Iterator[tuple[KallsymsTable | str, str, int]]
"""A table or why there is none, where that was looked for, and the virtual address from which the ranges count."""


def _already(kernel: Kernel) -> Attempt:
    if kernel.location.symbols is not None:
        at = kernel.location.image_address(kernel.location.symbols_at)
        yield kernel.location.symbols, "near linux_banner", at


def _hinted(kernel: Kernel) -> Attempt:
    """Since Linux 6.0 VMCOREINFO names the tables (commit 5fd8fea935a1 'vmcoreinfo: include kallsyms symbols')."""
    info = kernel.location.vmcoreinfo
    hints = {} if info is None else info[0].symbols
    wanted = ("kallsyms_names", "kallsyms_token_table", "kallsyms_token_index")
    if not all(name in hints for name in wanted):
        return
    floor, _ = _image_range(kernel)
    low = max(floor, min(hints[n] for n in hints if n.startswith("kallsyms_")) - _SCAN // 32 & ~0xFFF)
    high = max(hints[n] for n in hints if n.startswith("kallsyms_")) + _SCAN // 8
    where = f"virtual {hints['kallsyms_token_table']:#x}"
    try:
        start, data = _image_bytes(kernel, VirtAddr(low), VirtAddr(high))
        candidate = token_tables_at(data, hints["kallsyms_token_table"] - start, hints["kallsyms_token_index"] - start)
        yield decode_kallsyms(data, candidate, start, _names_hint(hints, start)), where, start
    except EvidenceError as fault:
        yield str(fault), where, low


def _names_hint(hints: Mapping[str, VirtAddr], start: int) -> NamesHint | None:
    places = [hints.get(f"kallsyms_{table}", VirtAddr(0)) - start for table in NamesHint._fields]
    return NamesHint(*places) if min(places) >= 0 else None


def _scanned(kernel: Kernel) -> Attempt:
    try:
        start, data = _image_bytes(kernel, *_image_range(kernel))
        search = search_kallsyms(data, start)
    except EvidenceError as fault:
        yield str(fault), "kernel image", 0
        return
    for rejected in search.rejected:
        yield rejected.rejected, f"virtual {start + rejected.anchor:#x}", start
    for table in search.tables:
        yield table, f"virtual {start + table.ranges['kallsyms_names'][0]:#x}", start


def _open_types(kernel: Kernel) -> None:
    for where, at, read in _each_btf(kernel):
        try:
            btf = Btf(read)
        except DecodeError as fault:
            kernel.candidates.append(Candidate(what="BTF", where=where, kept=False, reason=str(fault)))
            kernel.why_no_types = f"BTF at {where} does not decode: {fault.reason}"
            continue
        kernel.candidates.append(Candidate(what="BTF", where=where, kept=True, reason=f"{btf.end_id - 1:,} types"))
        kernel.use_types(btf, "BTF in the image", at)
        return


def _each_btf(kernel: Kernel) -> Iterator[tuple[str, int, bytes]]:
    """BTF at its symbols, else wherever its magic stands in the kernel's image: where, virtual address, bytes."""
    try:
        start, stop = kernel.symbols.address("__start_BTF"), kernel.symbols.address("__stop_BTF")
        if 0 < stop - start <= MAX_BTF:
            yield f"__start_BTF, virtual {start:#x}", start, kernel.space.read(start, stop - start)
            return
    except EvidenceError as fault:
        kernel.why_no_types = f"BTF cannot be read at its symbols: {fault}"
    try:
        base, view = _image_bytes(kernel, *_image_range(kernel))
    except EvidenceError:
        return
    data = bytes(view)
    at = data.find(_BTF_MAGIC)
    while at >= 0:
        length = int.from_bytes(data[at + 16 : at + 20], "little") + int.from_bytes(data[at + 20 : at + 24], "little")
        size = length + int.from_bytes(data[at + 4 : at + 8], "little")
        found = data[at : at + min(size, MAX_BTF)]
        if size > 1 << 18 and Holes(np.frombuffer(data, np.uint8), at, at + len(found)).any:
            kernel.why_no_types = f"pages of BTF at virtual {base + at:#x} are not in the image"
        elif size > 1 << 18:
            yield f"virtual {base + at:#x}", base + at, found
        at = data.find(_BTF_MAGIC, at + 1)


def _image_range(kernel: Kernel) -> tuple[VirtAddr, VirtAddr]:
    """The part of the kernel's image map to scan: from ``_stext`` if known, else around the page tables."""
    info = kernel.location.vmcoreinfo
    known = None if info is None else info[0].symbols.get("_stext")
    if known is None:
        top = kernel.location.root - kernel.location.phys_base + START_KERNEL_MAP
        known = VirtAddr(max(START_KERNEL_MAP, top % (1 << 64) - _SCAN))
    return VirtAddr(known & ~0xFFF), VirtAddr((known & ~0xFFF) + 2 * _SCAN)


def _image_bytes(kernel: Kernel, low: VirtAddr, high: VirtAddr) -> tuple[VirtAddr, memoryview]:
    """The kernel's image is contiguous in physical memory: read ``[low, high)`` in one piece, cut where memory ends.

    What is not there is zero pages, which whoever searches it takes for lost.
    """
    if not START_KERNEL_MAP <= low < START_KERNEL_MAP + _KERNEL_IMAGE_SIZE:
        raise MissingDescription(f"{low:#x} does not lie in the kernel's image")
    first = kernel.space.physical(low)
    return low, view_over_holes(kernel.memory, first, first + high - low)
