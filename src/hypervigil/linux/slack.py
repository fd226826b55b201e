"""Executable bytes behind the last function: where hooks like to put their stubs.

The loader zeroes a module's memory before it copies the sections in (move_module), and fills executable caches with
int3 (execmem_fill_trapping_insns); linkers pad text with int3, nop or zero. So behind the last function stands
nothing else.
"""

from collections.abc import Iterator

import msgspec
import numpy as np

from hypervigil.core.facts import Gap, Observed
from hypervigil.core.units import VirtAddr
from hypervigil.memory.space import AddressSpace

_PADDING = np.zeros(256, np.bool_)
_PADDING[[0x00, 0xCC, 0x90]] = True
_TRAP = 0xCC
_AT_ONCE = 1 << 24


class Residue(msgspec.Struct, frozen=True, order=True):
    """Bytes that stand where only padding should: half-open ``[start, end)``, virtual."""

    start: int
    end: int


def find_residue(space: AddressSpace, start: int, end: int, *, traps_only: bool = False) -> Observed[Residue]:
    """Runs of bytes in ``[start, end)`` that are no padding, closed over gaps of less than 16 bytes of it.

    Args:
        space: the kernel's memory.
        start: first address to look at.
        end: one past the last.
        traps_only: only int3 counts as padding.
    """
    found: list[Residue] = []
    missing: list[tuple[int, int]] = []
    for at, size, data in _each_piece(space, start, end):
        if data is None:
            joins = missing and missing[-1][1] == at
            missing.append((missing.pop()[0] if joins else at, at + size))
            continue
        values = np.frombuffer(data, np.uint8)
        odd = np.flatnonzero(values != _TRAP if traps_only else ~_PADDING[values])
        if odd.size:
            found += _runs(at, odd)
    gaps = (Gap(f"executable memory at {low:#x}, {high - low} bytes", "not in the image") for low, high in missing)
    return Observed(tuple(_joined(found)), tuple(gaps))


def _each_piece(space: AddressSpace, start: int, end: int) -> Iterator[tuple[VirtAddr, int, bytes | None]]:
    for at in range(start, end, _AT_ONCE):
        yield from space.each_piece(VirtAddr(at), min(_AT_ONCE, end - at))


def _runs(base: int, odd: "np.ndarray[tuple[int], np.dtype[np.intp]]") -> list[Residue]:
    cuts = np.flatnonzero(np.diff(odd) > 16)  # noqa: PLR2004 - no instruction is longer than 15 bytes
    starts = [odd[0], *odd[cuts + 1]]
    ends = [*odd[cuts], odd[-1]]
    return [Residue(base + int(low), base + int(high) + 1) for low, high in zip(starts, ends, strict=True)]


def _joined(found: list[Residue]) -> list[Residue]:
    joined: list[Residue] = []
    for residue in sorted(found):
        if joined and residue.start - joined[-1].end < 16:  # noqa: PLR2004 - as above
            joined[-1] = Residue(joined[-1].start, residue.end)
        else:
            joined.append(residue)
    return joined
