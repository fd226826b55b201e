"""Where a direct branch may lead: text of the kernel and of modules, code that the kernel made, and nowhere else.

A branch out of the kernel's own text into a module is lawful at patch sites only, since the kernel was linked before
any module was loaded. No branch leads to the slack behind the last function of a text, nor behind the padding between
two functions: there hooks put their stubs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hypervigil.core.errors import EvidenceError
from hypervigil.core.facts import Gap, Observed
from hypervigil.core.units import PAGE_SIZE
from hypervigil.linux.executable import executable_claims
from hypervigil.linux.system import KERNEL, System
from hypervigil.linux.text.code import U64, Code, Mask, gather, signed32
from hypervigil.linux.text.sites import INT3, JMP, JMP8
from hypervigil.linux.text.thunks import Thunks
from hypervigil.linux.vmap import VmapArea, vmap_areas
from hypervigil.memory.pagetable import Sweep, sweep
from hypervigil.memory.space import AddressSpace

_PADDINGS = (0x00, 0xCC, 0x90)
_WORD = 8
_MASK = PAGE_SIZE - 1
_JUMP = 5
_FORWARD = 127


class Ranges(NamedTuple):
    """Half-open ranges as parallel arrays, disjoint and sorted."""

    low: U64
    high: U64

    def hold(self, addresses: U64) -> Mask:
        """Which addresses lie in one of them."""
        if not len(self.low):
            return np.zeros(len(addresses), np.bool_)
        at = np.searchsorted(self.low, addresses, side="right") - 1
        found: Mask = (at >= 0) & (addresses < self.high[np.maximum(at, 0)])
        return found


class Landing(NamedTuple):
    """Where branches may lead.

    Attributes:
        kernel: the kernel's text.
        modules: text of modules up to the end of the last function of each.
        made: code that the kernel made: BPF, trampolines, thunks.
        executable: everything that the page tables let the processor execute.
        space: the kernel's memory.
        known: text of the kernel and of modules, to its last page.
        complete: whether all modules and all code that the kernel made could be read; otherwise only in `known` can a
            place be told to be nobody's.
        gaps: what could not be read.
    """

    kernel: Ranges
    modules: Ranges
    made: Ranges
    executable: Ranges
    space: AddressSpace
    known: Ranges = Ranges(np.array([], np.uint64), np.array([], np.uint64))
    complete: bool = True
    gaps: tuple[Gap, ...] = ()

    def lawful(self, owner: str, targets: U64) -> Mask:
        """Which targets a branch in the text of `owner` may have, patch sites aside."""
        found = self.kernel.hold(targets) | self.made.hold(targets)
        if owner != KERNEL:
            found |= self.modules.hold(targets)
        return found

    def refuses(self, owner: str, targets: U64) -> Mask:
        """Which targets are certainly none that a branch in the text of `owner` may have, patch sites aside."""
        found = ~self.lawful(owner, targets)
        return found if self.complete else found & self.known.hold(targets)

    def foreign(self, owner: str, targets: U64) -> Mask:
        """Which targets hold code that a branch in the text of `owner` must not lead to.

        Where an int3 stands there is no code: code of a module that refers to its freed init text leads there.
        """
        found = self.executable.hold(targets) & self.refuses(owner, targets)
        chosen = np.flatnonzero(found)
        if not len(chosen):
            return found
        first = gather(self.space, targets[chosen], 1)
        found[chosen] = ~first.seen | (first.rows[:, 0] != INT3)
        return found


def ranges(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """Merge half-open ranges, in any order and overlapping, into sorted disjoint ones."""
    merged: list[list[int]] = []
    for low, high in sorted(pairs):
        if merged and low <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], high)
        elif low < high:
            merged.append([low, high])
    whole = np.array(merged, np.uint64).reshape(-1, 2)
    return Ranges(whole[:, 0].copy(), whole[:, 1].copy())


def read_landing(
    system: System, thunks: Thunks, codes: Sequence[Code], copied: Mapping[str, tuple[int, int]] = {}
) -> Landing:
    """Find out where branches may lead.

    Args:
        system: the kernel with its modules.
        thunks: its thunks.
        codes: the texts of the kernel and of its modules.
        copied: by module, where the replacements of its alternatives stand, half-open: they are copied to their
            places and never run where they are.
    """
    kernel = system.kernel
    try:
        areas = vmap_areas(kernel)
    except EvidenceError as fault:
        areas = Observed((), (Gap("vmap areas", str(fault)),))
    claims = executable_claims(kernel, areas.items, system.modules.items)
    swept = sweep(kernel.memory, kernel.location.root, kernel.location.levels)
    leaves = swept.leaves
    functions = {code.owner: _functions(system, code) for code in codes}
    functions |= {owner: _without(functions[owner], *part) for owner, part in copied.items() if owner in functions}
    modules = [found for owner, found in functions.items() if owner != KERNEL]
    gaps = (*areas.gaps, *claims.gaps, *swept.gaps, *_lost_tables(swept, areas.items))
    return Landing(
        kernel=functions.get(KERNEL, ranges(())),
        modules=ranges(pair for found in modules for pair in zip(found.low.tolist(), found.high.tolist(), strict=True)),
        made=ranges([*((c.start, c.end) for c in claims.items), *(p for own in thunks.pages.values() for p in own)]),
        executable=ranges(zip(leaves.start.tolist(), (leaves.start + leaves.size).tolist(), strict=True)),
        space=kernel.space,
        known=ranges((code.start & ~_MASK, -(-code.end & ~_MASK)) for code in codes),
        complete=not (gaps or system.modules.gaps),
        gaps=gaps,
    )


def _lost_tables(swept: Sweep, areas: tuple[VmapArea, ...]) -> Iterator[Gap]:
    """Page tables that are all zero though an area in use needs them, in a format where that may mean missing."""
    for start, size in swept.empty_tables:
        if any(area.holds(start, start + size) for area in areas):
            yield Gap(f"page table for {start:#x}", "it is all zero, which this format cannot tell from missing")


def _functions(system: System, code: Code) -> Ranges:
    """The text without its holes: a hole begins with padding and ends at the next symbol."""
    symbols = system.symbols_of(code.owner)
    if symbols is None or not is_ordered(system, code.owner):
        return ranges([(code.start, code.end)])
    inside = symbols.between(code.start, code.end)
    starts = np.array([*symbols.addresses[inside.start : inside.stop], code.end], np.uint64)
    runs = _padding(code)
    runs = runs[code.holds(runs, 2 * _WORD) & ~_jumped_over(code, runs)]
    ends = starts[np.searchsorted(starts, runs)]
    first = np.append(True, ends[1:] != ends[:-1])[: len(runs)]
    lows = np.append(np.uint64(code.start), ends[first])
    highs = np.append(runs[first], np.uint64(code.end))
    kept = lows < highs
    return Ranges(lows[kept], highs[kept])


def _without(found: Ranges, low: int, high: int) -> Ranges:
    """The ranges with ``[low, high)`` cut out."""
    pairs = list(zip(found.low.tolist(), found.high.tolist(), strict=True))
    return ranges([*((a, min(b, low)) for a, b in pairs), *((max(a, high), b) for a, b in pairs)])


def _jumped_over(code: Code, runs: U64) -> Mask:
    """Which runs of padding a jump before them leads over: a long alternative that does nothing (optimize_nops)."""
    start = code.offsets(runs)
    for _ in range(_WORD - 1):
        start = start - ((start > 0) & (code.bytes[start - 1] == code.bytes[code.offsets(runs)]))
    rows = code.rows(np.uint64(code.start) + (start - _JUMP).astype(np.uint64), _JUMP)
    short = (rows[:, 3] == JMP8) & (rows[:, 4] > 0) & (rows[:, 4] <= _FORWARD)
    distance = signed32(rows, 1)
    found: Mask = short | (rows[:, 0] == JMP) & (distance > _FORWARD) & (distance < PAGE_SIZE)
    return found


def is_ordered(system: System, owner: str) -> bool:
    """Whether the symbols of an object fit together, so that none seems to be lost."""
    table = system.kernel.table
    return owner != KERNEL or table is None or not table.contradictions


def _padding(code: Code) -> U64:
    """Where runs of at least 16 aligned bytes of padding begin, ascending."""
    lead = -code.start % _WORD
    words = np.frombuffer(code.data, "<u8", max(0, len(code.data) - lead) // _WORD, lead)
    padding = np.zeros(len(words), np.bool_)
    for byte in _PADDINGS:
        padding |= words == np.uint64(byte * 0x0101_0101_0101_0101)
    runs = padding[:-1] & padding[1:]
    found = np.flatnonzero(runs & ~np.append(False, runs[:-1]))
    addresses: U64 = np.uint64(code.start + lead) + found.astype(np.uint64) * np.uint64(_WORD)
    return addresses
