"""Facts about the kernel itself: how it describes itself, its executable memory, tables, modules and processes."""

import msgspec

from hypervigil.core.evidence import Span
from hypervigil.core.facts import Fact, require
from hypervigil.facts.code import CodeComparison
from hypervigil.facts.pointers import PointerTable
from hypervigil.facts.views import CrossView


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What one description says, such as VMCOREINFO that ``_stext`` is at some address.

    Attributes:
        source: the description.
        value: what it says.
        span: the bytes that say it.
        address: virtual address of these; None where the claim follows from no place in particular.
    """

    source: str
    value: str
    span: tuple[Span, ...]
    address: int | None = None


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One subject and everything that is said of it."""

    subject: str
    claims: tuple[Claim, ...]


class SelfDescription(Fact, kw_only=True, frozen=True):
    """What the kernel's descriptions of itself say, subject by subject.

    Raises:
        ImpossibleFact: no statement has two sources; then nothing was compared.
    """

    statements: tuple[Statement, ...]

    def __post_init__(self) -> None:
        require(any(len(s.claims) > 1 for s in self.statements), "no statement about the kernel has two sources")


class SymbolTable(Fact, kw_only=True, frozen=True):
    """The kernel's symbol table against its own order and against the export tables.

    Attributes:
        count: symbols in the table.
        exports: exported symbols that were compared.
        faults: each contradiction as a sentence, with the bytes it stands in.
    """

    count: int
    exports: int
    faults: tuple[Claim, ...]

    def __post_init__(self) -> None:
        require(self.count, "a symbol table without symbols")


class ExecutableRegion(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of executable pages with the same owner and rights: half-open ``[start, end)``, virtual.

    Attributes:
        owner: who it belongs to, such as ``kernel text`` or ``module kvm``; empty if nobody claims it.
        kind: text, jit, trampoline, cache.
        table_span: the page table entry of its first page in the evidence.
        span: its first bytes in the evidence; empty if they are not in it.
    """

    start: int
    end: int
    owner: str
    kind: str
    writable: bool
    user: bool
    table_span: tuple[Span, ...]
    span: tuple[Span, ...] = ()


class ExecutableMemory(Fact, kw_only=True, frozen=True):
    """Every page that the kernel's page tables let the processor execute.

    Raises:
        ImpossibleFact: there is none; a kernel that runs has executable pages.
    """

    regions: tuple[ExecutableRegion, ...]

    def __post_init__(self) -> None:
        require(self.regions or self.gaps, "no executable page")


class Residue(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes behind the last function of an owner's executable pages that are no padding.

    Attributes:
        owner: whose pages they are.
        start: virtual address of the first byte.
        end: one past the last.
        span: the bytes in the evidence.
    """

    owner: str
    start: int
    end: int
    span: tuple[Span, ...]


class ExecutableSlack(Fact, kw_only=True, frozen=True):
    """Executable bytes that belong to no function.

    Attributes:
        looked_at: how many bytes were looked at.
        residues: what is no padding among them.
    """

    looked_at: int
    residues: tuple[Residue, ...]

    def __post_init__(self) -> None:
        require(self.gaps or self.looked_at, "no executable slack was looked at")


class ProtectedRange(msgspec.Struct, frozen=True, kw_only=True):
    """A range that should be mapped read-only, and the pages in it that are not.

    Attributes:
        name: such as ``kernel rodata`` or ``kvm text``.
        pages: leaf pages in the range.
        writable: ``(virtual address, span of the page table entry)`` of each writable page.
    """

    name: str
    start: int
    end: int
    pages: int
    writable: tuple[tuple[int, tuple[Span, ...]], ...] = ()


class MemoryProtection(Fact, kw_only=True, frozen=True):
    """Rights of the pages that hold text and read-only data."""

    ranges: tuple[ProtectedRange, ...]

    def __post_init__(self) -> None:
        require(self.gaps or any(r.pages for r in self.ranges), "no protected page was looked at")


class PrivateEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A process whose page tables map the kernel's half differently from ``swapper_pg_dir``."""

    process: str
    start: int
    entry: int
    wanted: int
    span: tuple[Span, ...]


class UserHalfEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A present top-level entry of ``swapper_pg_dir`` for the user half, which begins at virtual address `start`."""

    start: int
    entry: int
    span: tuple[Span, ...]


class RepeatedTable(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the page tables, for virtual addresses from `start` on, whose table another entry leads to as well.

    Attributes:
        start: virtual address.
        table: physical address of that table.
        span: the entry.
    """

    start: int
    table: int
    span: tuple[Span, ...]


class KernelHalf(Fact, kw_only=True, frozen=True):
    """The kernel's half of every process's page tables.

    Attributes:
        compared: how many top-level tables were compared.
        private: entries that differ.
        user_half: what ``swapper_pg_dir`` itself maps outside of the kernel's half.
        repeated: entries below ``swapper_pg_dir`` that share a table with another one.
    """

    compared: int
    private: tuple[PrivateEntry, ...]
    user_half: tuple[UserHalfEntry, ...] = ()
    repeated: tuple[RepeatedTable, ...] = ()

    def __post_init__(self) -> None:
        require(self.compared or self.gaps, "no process's page table was compared")


class SystemCalls(PointerTable, frozen=True):
    """``sys_call_table`` and the tables for 32-bit callers."""


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the interrupt descriptor table.

    Attributes:
        vector: 0 to 255.
        privilege: the privilege level that may call it by an instruction (DPL).
        selector: the code segment it loads.
    """

    vector: int
    privilege: int
    selector: int


class InterruptTable(PointerTable, kw_only=True, frozen=True):
    """The interrupt descriptor table: slot ``i`` belongs to ``gates[i]``.

    Attributes:
        in_use: tables that processors use: who says so (``idt_descr``, registers), the virtual address that is given,
            and the physical address where it leads.
        address: physical address of the table that was read.
    """

    gates: tuple[Gate, ...]
    address: int
    in_use: tuple[Claim, ...] = ()


class Modules(CrossView, frozen=True):
    """Kernel modules through the module list, the address tree, sysfs, page tables and type information."""


class Tasks(CrossView, frozen=True):
    """Processes through the task list, the process id table, the scheduler and KVM's owners."""


class TextSites(CodeComparison, frozen=True):
    """Text of the kernel and its modules against their own tables of patch sites."""


class VendorText(CodeComparison, frozen=True):
    """Text of the kernel and its modules against a package that the user gave."""


class VendorData(CodeComparison, frozen=True):
    """Read-only data of the kernel and its modules against a package that the user gave."""
