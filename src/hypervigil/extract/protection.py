"""Rights of pages: what should be read-only, and whether the halves of page tables are what the kernel makes them."""

from collections.abc import Iterator

import numpy as np

from hypervigil.core.errors import EvidenceError, MissingDescription
from hypervigil.core.facts import Gap
from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.extract.loading import Subject, extracts
from hypervigil.facts.kernel import (
    KernelHalf,
    MemoryProtection,
    PrivateEntry,
    ProtectedRange,
    RepeatedTable,
    UserHalfEntry,
)
from hypervigil.facts.pointers import Section
from hypervigil.linux.members import number
from hypervigil.linux.system import System
from hypervigil.linux.tasks import Task
from hypervigil.memory.locate import START_KERNEL_MAP
from hypervigil.memory.pagetable import Leaves, Sweep, sweep

_MASK = PAGE_SIZE - 1
_ENTRY = 8
_HALF = 256
_PRESENT = 1
_COMPARED_BITS = np.uint64(0x800F_FFFF_FFFF_F007)  # no-execute, frame, user, writable, present
_LDT_SLOT = 272  # LDT_PGD_ENTRY, private to each process under page table isolation (arch/x86/kernel/ldt.c)


_SHADOW = {
    4: (0xFFFF_EC00_0000_0000, 0xFFFF_FC00_0000_0000),
    5: (0xFFDF_0000_0000_0000, 0xFFFF_FC00_0000_0000),
}
"""KASAN's shadow by levels of the page tables (Documentation/arch/x86/x86_64/mm.rst)."""

_SHADOW_TABLES = ("kasan_early_shadow_pte", "kasan_early_shadow_page")


@extracts(MemoryProtection)
def memory_protection(subject: Subject) -> MemoryProtection:
    """Look up every page of text and read-only data in the kernel's page tables."""
    system = subject.system
    kernel = system.kernel
    for name in ("_stext", "_etext", "__start_rodata", "__end_rodata"):
        kernel.symbols.address(name)
    swept = sweep(
        kernel.memory, kernel.location.root, kernel.location.levels, low=START_KERNEL_MAP, executable_only=False
    )
    gaps = [*system.modules.gaps, *swept.gaps]
    ranges = []
    for name, start, end in _each_protected(system):
        found, missing = _look_up(system, swept.leaves, name, start, end)
        ranges.append(found)
        if missing:
            gaps.append(Gap(f"{missing} pages of {name}", "the page tables do not map them"))
    return MemoryProtection(ranges=tuple(ranges), gaps=tuple(sorted(set(gaps))))


def _each_protected(system: System) -> Iterator[tuple[str, int, int]]:
    states = {module.name: module.state for module in system.modules.items}
    for owned in system.ranges:
        if owned.section in {Section.TEXT, Section.RODATA} and states.get(owned.owner, "live") == "live":
            yield f"{owned.owner} {owned.section}", owned.start & ~_MASK, (owned.end + _MASK) & ~_MASK


def _look_up(system: System, leaves: Leaves, name: str, start: int, end: int) -> tuple[ProtectedRange, int]:
    """The leaves that map ``[start, end)``, and how many pages of it none maps."""
    ends = leaves.start + leaves.size
    inside = (leaves.start < np.uint64(end)) & (ends > np.uint64(start))
    low, high = np.maximum(leaves.start[inside], np.uint64(start)), np.minimum(ends[inside], np.uint64(end))
    covered = int((high - low).sum()) // PAGE_SIZE
    writable = np.flatnonzero(inside & leaves.writable)
    found = ProtectedRange(
        name=name,
        start=start,
        end=end,
        pages=covered,
        writable=tuple(
            (int(leaves.start[i]), system.kernel.memory.spans(PhysAddr(int(leaves.table[i])), _ENTRY))
            for i in writable.tolist()
        ),
    )
    return found, (end - start) // PAGE_SIZE - covered


@extracts(KernelHalf)
def kernel_half(subject: Subject) -> KernelHalf:
    """Compare the upper half of every process's top-level table with ``swapper_pg_dir``, and look at its lower half."""
    kernel = subject.system.kernel
    top = kernel.memory.read(kernel.location.root, PAGE_SIZE)
    shared = _upper(top)
    gaps = list(subject.census.tasks.gaps)
    private: list[PrivateEntry] = []
    tables: dict[int, Task] = {}
    compared = 0
    for task in subject.census.tasks.items:
        if task.mm:
            tables.setdefault(task.mm, task)
    for mm, task in tables.items():
        try:
            root = kernel.space.physical(VirtAddr(number(kernel.object("struct mm_struct", mm), "pgd")))
            data = kernel.memory.read(root, PAGE_SIZE)
            if kernel.memory.zero_is_missing and not any(data):
                why = "it is all zero, which this format cannot tell from missing"
                gaps.append(Gap(f"page table of {task.name}", why))
                continue
            private += _different(subject, task, root, shared, _upper(data))
            compared += 1
        except EvidenceError as fault:
            gaps.append(Gap(f"page table of {task.name}", str(fault)))
    swept = sweep(kernel.memory, kernel.location.root, kernel.location.levels)
    gaps += swept.gaps
    return KernelHalf(
        compared=compared,
        private=tuple(private),
        user_half=tuple(_user_half(subject, top)),
        repeated=tuple(_repeated(subject.system, swept, gaps)),
        gaps=tuple(sorted(set(gaps))),
    )


def _repeated(system: System, swept: Sweep, gaps: list[Gap]) -> Iterator[RepeatedTable]:
    """Tables that are shared. KASAN, if a kernel has it, maps what needs no shadow by the same few ones."""
    try:
        kasan = any(system.kernel.symbols.find(name) is not None for name in _SHADOW_TABLES)
    except MissingDescription as fault:
        kasan = True
        gaps += [Gap("page tables that are shared", str(fault))] if swept.repeats else []
    low, high = _SHADOW[system.kernel.location.levels]
    for one in swept.repeats:
        if not (kasan and low <= one.start < high):
            yield RepeatedTable(start=one.start, table=one.table, span=system.kernel.memory.spans(one.slot, _ENTRY))


def _user_half(subject: Subject, top: bytes) -> Iterator[UserHalfEntry]:
    """Present entries of the user half of ``swapper_pg_dir``.

    There are none: boot code uses the first one, x86_64_start_kernel (arch/x86/kernel/head64.c) clears the page and
    fills the kernel's half only, and whoever needs an identity mapping later makes tables of his own (the real mode
    trampoline, EFI, kexec, hibernation).
    """
    location = subject.system.kernel.location
    for slot, entry in enumerate(np.frombuffer(top, "<u8", _HALF).tolist()):
        if entry & _PRESENT:
            yield UserHalfEntry(
                start=slot << (12 + 9 * (location.levels - 1)),
                entry=entry,
                span=subject.system.kernel.memory.spans(PhysAddr(location.root + slot * _ENTRY), _ENTRY),
            )


def _upper(table: bytes) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    entries: np.ndarray[tuple[int], np.dtype[np.uint64]] = np.frombuffer(table, "<u8", offset=_HALF * _ENTRY)
    return entries & _COMPARED_BITS


def _different(
    subject: Subject,
    task: Task,
    root: PhysAddr,
    shared: "np.ndarray[tuple[int], np.dtype[np.uint64]]",
    own: "np.ndarray[tuple[int], np.dtype[np.uint64]]",
) -> Iterator[PrivateEntry]:
    """Entries that differ, but for those that the kernel has not copied yet."""
    location = subject.system.kernel.location
    shift = 12 + 9 * (location.levels - 1)
    for index in np.flatnonzero((own != shared) & (own != 0)).tolist():
        slot = index + _HALF
        if slot == _LDT_SLOT and not shared[index]:
            continue
        high = 0xFFFF_FFFF_FFFF_FFFF << (shift + 9) & 0xFFFF_FFFF_FFFF_FFFF
        yield PrivateEntry(
            process=task.name,
            start=high | slot << shift,
            entry=int(own[index]),
            wanted=int(shared[index]),
            span=subject.system.kernel.memory.spans(PhysAddr(root + slot * _ENTRY), _ENTRY),
        )
