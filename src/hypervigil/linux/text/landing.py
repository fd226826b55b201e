"""Where a direct branch may lead: text of the kernel and of modules, code that the kernel made, and nowhere else.

A branch out of the kernel's own text into a module is lawful at patch sites only, since the kernel was linked before
any module was loaded. No branch leads to the slack behind the last function of a text, nor behind the padding between
two functions: there hooks put their stubs.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from hypervigil.core.errors import EvidenceError
from hypervigil.core.facts import Gap
from hypervigil.linux.executable import executable_claims
from hypervigil.linux.system import KERNEL, System
from hypervigil.linux.text.code import U64, Code, Mask, gather
from hypervigil.linux.text.sites import INT3
from hypervigil.linux.text.thunks import Thunks
from hypervigil.linux.vmap import vmap_areas
from hypervigil.memory.pagetable import sweep
from hypervigil.memory.space import AddressSpace

_PADDINGS = (0x00, 0xCC, 0x90)
_WORD = 8


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
        gaps: what could not be read.
    """

    kernel: Ranges
    modules: Ranges
    made: Ranges
    executable: Ranges
    space: AddressSpace
    gaps: tuple[Gap, ...] = ()

    def lawful(self, owner: str, targets: U64) -> Mask:
        """Which targets a branch in the text of `owner` may have, patch sites aside."""
        found = self.kernel.hold(targets) | self.made.hold(targets)
        if owner != KERNEL:
            found |= self.modules.hold(targets)
        return found

    def foreign(self, owner: str, targets: U64) -> Mask:
        """Which targets hold code that a branch in the text of `owner` must not lead to.

        Where an int3 stands there is no code: code of a module that refers to its freed init text leads there.
        """
        found: Mask = self.executable.hold(targets) & ~self.lawful(owner, targets)
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


def read_landing(system: System, thunks: Thunks, codes: Iterable[Code]) -> Landing:
    """Find out where branches may lead.

    Args:
        system: the kernel with its modules.
        thunks: its thunks.
        codes: the texts of the kernel and of its modules.
    """
    kernel = system.kernel
    gaps: list[Gap] = []
    try:
        areas = vmap_areas(kernel).items
    except EvidenceError as fault:
        areas = ()
        gaps.append(Gap("vmap areas", str(fault)))
    claims = executable_claims(kernel, areas, system.modules.items)
    gaps += claims.gaps
    leaves = sweep(kernel.memory, kernel.location.root, kernel.location.levels).leaves
    made = [(c.start, c.end) for c in claims.items]
    made += [pair for own in thunks.pages.values() for pair in own]
    functions = {code.owner: _functions(system, code) for code in codes}
    modules = [found for owner, found in functions.items() if owner != KERNEL]
    return Landing(
        kernel=functions.get(KERNEL, ranges(())),
        modules=ranges(pair for found in modules for pair in zip(found.low.tolist(), found.high.tolist(), strict=True)),
        made=ranges(made),
        executable=ranges(zip(leaves.start.tolist(), (leaves.start + leaves.size).tolist(), strict=True)),
        space=kernel.space,
        gaps=tuple(gaps),
    )


def _functions(system: System, code: Code) -> Ranges:
    """The text without its holes: a hole begins with padding and ends at the next symbol."""
    symbols = system.symbols_of(code.owner)
    if symbols is None:
        return ranges([(code.start, code.end)])
    inside = symbols.between(code.start, code.end)
    starts = np.array([*symbols.addresses[inside.start : inside.stop], code.end], np.uint64)
    runs = _padding(code)
    ends = starts[np.searchsorted(starts, runs)]
    first = np.append(True, ends[1:] != ends[:-1])[: len(runs)]
    lows = np.append(np.uint64(code.start), ends[first])
    highs = np.append(runs[first], np.uint64(code.end))
    kept = lows < highs
    return Ranges(lows[kept], highs[kept])


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
