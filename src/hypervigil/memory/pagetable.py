"""x86-64 page tables: translating single addresses and sweeping whole address spaces.

Source: Intel SDM volume 3A, chapter 4 "Paging", and AMD64 APM volume 2, section 5.3: 4- and 5-level paging, entry
bits present 0, writable 1, user 2, page size 7, no-execute 63. Linux keeps its kernel half in ``swapper_pg_dir``,
whose user half is empty once the kernel runs.

Tables come from an attacker. A table is followed once: tables that several entries lead to, or that refer to each
other in a circle, would multiply by 512 with every level. Linux gives every entry of the kernel's half a table of its
own, but for the stacks of espfix (init_espfix_ap, arch/x86/kernel/espfix_64.c) and the shadow of KASAN; so a second
entry is told. The number of followed tables is bounded, and whatever could not be followed is a gap.
"""

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from hypervigil.core.errors import MissingMemory
from hypervigil.core.facts import Gap
from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.memory.reader import Reader

U64 = npt.NDArray[np.uint64]

_PRESENT = 1 << 0
_WRITABLE = 1 << 1
_USER = 1 << 2
_LARGE = 1 << 7
_NO_EXECUTE = 1 << 63
_FRAME = 0x000F_FFFF_FFFF_F000
_ENTRIES = 512
_MAX_TABLES = 1 << 16
_MAX_LEAVES = 1 << 21
_MAX_TOLD = 64
_ESPFIX = (0xFFFF_FF00_0000_0000, 0xFFFF_FF80_0000_0000)
_BATCH = 1024


class Mapping(NamedTuple):
    """Where a virtual address leads: the physical address, and what is left of its page there.

    Attributes:
        address: the physical address of the byte asked for.
        rest: bytes from there to the end of the page.
        entry: the leaf entry as it stands in the table.
        slot: physical address of that entry.
    """

    address: PhysAddr
    rest: int
    entry: int
    slot: PhysAddr


class Leaves(msgspec.Struct, frozen=True):
    """Leaf pages as parallel arrays, sorted by virtual address.

    Attributes:
        start: virtual address of each page.
        size: its size in bytes (4 KiB, 2 MiB, 1 GiB).
        frame: its physical address.
        writable: the walk allows writing at every level.
        user: the walk allows user mode at every level.
        table: physical address of the leaf entry itself.
    """

    start: U64
    size: U64
    frame: U64
    writable: npt.NDArray[np.bool_]
    user: npt.NDArray[np.bool_]
    table: U64

    def __len__(self) -> int:
        return int(self.start.size)


class Repeat(NamedTuple):
    """An entry that leads to a table to which another one leads as well.

    Attributes:
        start: virtual address from which on the entry maps.
        table: physical address of the table that it leads to.
        slot: physical address of the entry.
    """

    start: VirtAddr
    table: PhysAddr
    slot: PhysAddr


class Sweep(msgspec.Struct, frozen=True):
    """The leaves of an address range, beside what could not be walked.

    Attributes:
        leaves: every leaf that was asked for.
        tables: how many tables were read.
        repeats: entries that lead to a table that was met before, at most 64, without those of espfix at one level.
        gaps: tables that are missing, zero where that cannot be told from missing, or one too many.
        empty_tables: virtual ranges ``(start, size)`` whose table is all zero in a format where that may be a gap.
    """

    leaves: Leaves
    tables: int
    repeats: tuple[Repeat, ...]
    gaps: tuple[Gap, ...]
    empty_tables: tuple[tuple[VirtAddr, int], ...]


class _Frontier(NamedTuple):
    base: U64
    table: U64
    writable: npt.NDArray[np.bool_]
    user: npt.NDArray[np.bool_]

    def pick(self, rows: slice | npt.NDArray[np.intp]) -> "_Frontier":
        """Return the selected rows of every column."""
        return _Frontier(self.base[rows], self.table[rows], self.writable[rows], self.user[rows])


def translate(memory: Reader, root: PhysAddr, levels: int, address: VirtAddr) -> Mapping:
    """Walk the tables at `root` for one address.

    Raises:
        MissingMemory: the address is not mapped, or a table is not in the evidence.
    """
    table = int(root)
    for level in range(levels, 0, -1):
        shift = 12 + 9 * (level - 1)
        slot = table + 8 * ((address >> shift) & (_ENTRIES - 1))
        entry = int.from_bytes(memory.read(PhysAddr(slot), 8), "little")
        if not entry & _PRESENT:
            raise MissingMemory(address, 1, f"not mapped at level {level}", virtual=True)
        if level == 1 or (entry & _LARGE and level <= 3):  # noqa: PLR2004 - pages end at 1 GiB
            inside = address & ((1 << shift) - 1)
            frame = entry & _FRAME & ~((1 << shift) - 1)
            return Mapping(PhysAddr(frame + inside), (1 << shift) - inside, entry, PhysAddr(slot))
        table = entry & _FRAME
    raise AssertionError("a walk ends at level 1")


def sweep(
    memory: Reader,
    root: PhysAddr,
    levels: int,
    *,
    low: int = 0,
    executable_only: bool = True,
) -> Sweep:
    """Find every leaf below `root` from virtual address `low` on, by default those the processor may execute from.

    Without `low` both halves are swept: what a table maps in the half where nothing belongs is still mapped.

    Args:
        memory: physical memory.
        root: physical address of the top-level table.
        levels: 4 or 5.
        low: leaves that end at or below it are left out, and tables that only lead to such. Between the halves, such
            as ``1 << 63``, it means the kernel's half with any number of levels.
        executable_only: leave out what has no-execute set at any level.

    Cost: one read per table; a 512 MiB host has some hundred.
    """
    walk = _Walk(memory, root, levels, low, executable_only=executable_only)
    frontier = _Frontier(np.array([0], np.uint64), np.array([root], np.uint64), np.array([True]), np.array([True]))
    for level in range(levels, 0, -1):
        frontier = walk.descend(frontier, level)
    return walk.result()


def _are_in(values: U64, known: U64) -> npt.NDArray[np.bool_]:
    """Which values are among some, which are sorted; `numpy.unique` imports what a confined process cannot."""
    if not known.size:
        return np.zeros(values.size, np.bool_)
    found: npt.NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, values), known.size - 1)] == values
    return found


class _Walk:
    """The state of one sweep: what was found, what was missing, how much was read."""

    def __init__(self, memory: Reader, root: PhysAddr, levels: int, low: int, *, executable_only: bool) -> None:
        self._memory = memory
        self._met: dict[int, U64] = {levels: np.array([root], np.uint64)}
        self._repeats: list[Repeat] = []
        self._left_out = 0
        self._sign = np.uint64(1 << (11 + 9 * levels))
        self._high = ~np.uint64((2 << (11 + 9 * levels)) - 1)
        canonical = not int(self._sign) <= low < (1 << 64) - int(self._sign)
        self._low = np.uint64(low) & ~self._high if canonical else self._sign
        self._barred = np.uint64(_PRESENT | _NO_EXECUTE if executable_only else _PRESENT)
        none, no = np.zeros(0, np.uint64), np.zeros(0, np.bool_)
        self._found: list[tuple[U64, U64, U64, npt.NDArray[np.bool_], npt.NDArray[np.bool_], U64]] = [
            (none, none, none, no, no, none)
        ]
        self._gaps: list[Gap] = []
        self._empty: list[tuple[int, int]] = []
        self._tables = 1
        self._refused = 0
        self._leaves = 0
        self._dropped = 0

    def descend(self, frontier: _Frontier, level: int) -> _Frontier:
        """Read all tables of one level; keep the leaves that were asked for, return the tables of the next level."""
        shift = 12 + 9 * (level - 1)
        parts = [frontier.pick(slice(0))]
        parts += (
            self._admitted(self._batch(frontier.pick(slice(at, at + _BATCH)), shift, level))
            for at in range(0, frontier.base.size, _BATCH)
        )
        return _Frontier(
            np.concatenate([part.base for part in parts]),
            np.concatenate([part.table for part in parts]),
            np.concatenate([part.writable for part in parts]),
            np.concatenate([part.user for part in parts]),
        )

    def _admitted(self, part: _Frontier) -> _Frontier:
        """As many of the tables as may still be read; forged ones multiply by 512 with every level."""
        kept = part.pick(np.arange(min(part.base.size, max(0, _MAX_TABLES - self._tables))))
        self._tables += kept.base.size
        self._refused += part.base.size - kept.base.size
        return kept

    def _batch(self, part: _Frontier, shift: int, level: int) -> _Frontier:
        rows, kept = self._read(part, shift)
        if not kept.size:
            return part.pick(slice(0))
        part = part.pick(kept)
        row, slot = np.nonzero((rows & self._barred) == np.uint64(_PRESENT))
        base = part.base[row] + (slot.astype(np.uint64) << np.uint64(shift))
        wanted = base + np.uint64((1 << shift) - 1) >= self._low
        row, slot, base = row[wanted], slot[wanted], base[wanted]
        entry = rows[row, slot]
        writable = part.writable[row] & ((entry & np.uint64(_WRITABLE)) != 0)
        user = part.user[row] & ((entry & np.uint64(_USER)) != 0)
        if level == 1:
            leaf = np.ones(entry.size, np.bool_)
        elif level <= 3:  # noqa: PLR2004 - pages end at 1 GiB
            leaf = (entry & np.uint64(_LARGE)) != 0
        else:
            leaf = np.zeros(entry.size, np.bool_)
        frame = entry & np.uint64(_FRAME) & ~np.uint64((1 << shift) - 1)
        where = part.table[row] + slot.astype(np.uint64) * np.uint64(8)
        size = np.full(entry.size, 1 << shift, np.uint64)
        kept = self._within(np.flatnonzero(leaf))
        self._found.append((base[kept], size[kept], frame[kept], writable[kept], user[kept], where[kept]))
        deeper = np.flatnonzero(~leaf)
        if not deeper.size:
            return part.pick(slice(0))
        table = entry & np.uint64(_FRAME)
        kept = deeper[self._followed(base[deeper], table[deeper], where[deeper], level - 1)]
        return _Frontier(base[kept], table[kept], writable[kept], user[kept])

    def _followed(self, base: U64, table: U64, slot: U64, level: int) -> npt.NDArray[np.bool_]:
        """Which of the entries lead to tables that were not met before; the others are told, but for those of espfix.

        Args:
            base: the virtual address that each maps from.
            table: the physical address that each leads to.
            slot: where each stands.
            level: the level of the tables.
        """
        mine = self._met.get(level, np.zeros(0, np.uint64))
        others = np.sort(np.concatenate([met for at, met in self._met.items() if at != level]))
        again = _are_in(table, mine)
        order = np.argsort(table, kind="stable")
        again[order[1:][table[order[1:]] == table[order[:-1]]]] = True
        self._met[level] = np.sort(np.concatenate([mine, table[~again]]))
        start = np.where((base & self._sign) != 0, base | self._high, base)
        circular = _are_in(table, others)
        odd = circular | (again & ~((start >= np.uint64(_ESPFIX[0])) & (start < np.uint64(_ESPFIX[1]))))
        for index in np.flatnonzero(odd)[: _MAX_TOLD - len(self._repeats)].tolist():
            self._repeats.append(
                Repeat(VirtAddr(int(start[index])), PhysAddr(int(table[index])), PhysAddr(int(slot[index])))
            )
        self._left_out += int(np.count_nonzero(odd))
        return ~(circular | again)

    def _within(self, leaves: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        kept = leaves[: max(0, _MAX_LEAVES - self._leaves)]
        self._leaves += kept.size
        self._dropped += leaves.size - kept.size
        return kept

    def _read(self, part: _Frontier, shift: int) -> tuple[U64, npt.NDArray[np.intp]]:
        pages: dict[int, bytes | None] = {}
        kept: list[int] = []
        rows: list[bytes] = []
        for index, table in enumerate(part.table.tolist()):
            page = pages[table] if table in pages else pages.setdefault(table, self._page(table))
            base = self._canonical(part.base[index])
            if page is None:
                self._gaps.append(Gap(f"page table at physical {table:#x} for {base:#x}", "not in the image"))
                continue
            if self._memory.zero_is_missing and not any(page):
                self._empty.append((base, _ENTRIES << shift))
            kept.append(index)
            rows.append(page)
        data = np.frombuffer(b"".join(rows), dtype="<u8").reshape(-1, _ENTRIES)
        return data, np.array(kept, np.intp)

    def _page(self, table: int) -> bytes | None:
        try:
            return self._memory.read(PhysAddr(table), PAGE_SIZE)
        except MissingMemory:
            return None

    def _canonical(self, address: np.uint64) -> int:
        return int(address | self._high if address & self._sign else address)

    def result(self) -> Sweep:
        """Put the leaves of all levels together, sorted by address."""
        forged = "the tables refer to themselves or are forged"
        if self._refused:
            self._gaps.append(Gap(f"{self._refused} page tables", f"more than {_MAX_TABLES} tables: {forged}"))
        if self._left_out:
            self._gaps.append(Gap(f"{self._left_out} entries of page tables", f"they lead where others do: {forged}"))
        if self._dropped:
            self._gaps.append(Gap(f"{self._dropped} pages", f"more than {_MAX_LEAVES} pages: {forged}"))
        columns = [np.concatenate(column) for column in zip(*self._found, strict=True)]
        start = columns[0]
        start = np.where((start & self._sign) != 0, start | self._high, start)
        order = np.argsort(start, kind="stable")
        return Sweep(
            leaves=Leaves(start[order], *(column[order] for column in columns[1:])),
            tables=self._tables,
            repeats=tuple(sorted(self._repeats)),
            gaps=tuple(sorted(self._gaps)),
            empty_tables=tuple(sorted((VirtAddr(base), size) for base, size in self._empty)),
        )
