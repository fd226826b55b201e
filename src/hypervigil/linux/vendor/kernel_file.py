"""A kernel's file laid out where the kernel runs.

A kernel is linked at a fixed address and moved by its KASLR offset when it starts: the decompressor adds the offset at
every place of a list that follows the ELF file in a bzImage (arch/x86/boot/compressed/misc.c, handle_relocations;
arch/x86/tools/relocs.c). The list is read from its end: 32-bit places up to a zero, then, until 6.14, places of
distances to per-CPU variables, which shrink by the offset, up to a zero, then 64-bit places. a8327be7b2aa "x86/boot:
Remove inverse relocations" (6.15) dropped those in the middle. A vmlinux with symbols may have kept the linker's own
relocations instead, from which the list is made. One that has neither does not tell its places; there a number that
differs by exactly the offset counts as moved.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hypervigil.core.errors import DecodeError
from hypervigil.linux.text.code import I64, U8, U64, Mask
from hypervigil.linux.vendor.built import Built, Part
from hypervigil.linux.vendor.elf import ALLOC, EXEC, WRITE, ElfFile, Section

_NOBITS = 8
_HIGH = 0xFFFF_FFFF_0000_0000
_MAP = 0xFFFF_FFFF_8000_0000
"""__START_KERNEL_map: what is subtracted where the kernel computes physical addresses of itself."""

_TOP = 1 << 64
_LISTS = 3
_PER_CPU, _POINTERS = ".data..percpu", ".parainstructions"
_ABSOLUTE = 0xFFF1
_NARROW, _WIDE, _DISTANCES = (10, 11), 1, (2, 4)
_PIECE = 4096
_NARROWED = 1 << 32
_MOST_PER_CPU = 1 << 20
_NOTHING: U64 = np.array([], np.uint64)

Memory = Callable[[int, int], bytes | None]


class BootRelocations(NamedTuple):
    """Virtual addresses, as linked, of what moves with the kernel.

    Attributes:
        narrow: 32-bit addresses.
        inverse: 32-bit distances to what does not move.
        wide: 64-bit addresses.
    """

    narrow: U64
    inverse: U64
    wide: U64

    def __bool__(self) -> bool:
        return bool(len(self.narrow) and len(self.wide))


def boot_relocations(rest: memoryview) -> BootRelocations:
    """Read the lists behind a kernel's ELF file; empty ones where there are none."""
    words = np.frombuffer(rest, "<u4", len(rest) // 4, len(rest) % 4)[::-1]
    zeros = np.flatnonzero(words == 0)[:_LISTS].tolist()
    lists: list[U64] = []
    start = 0
    for end in zeros:
        lists.append(words[start:end].astype(np.uint64) | np.uint64(_HIGH))
        start = end + 1
    if len(lists) == _LISTS:
        return BootRelocations(lists[0], lists[1], lists[2])
    if len(lists) == _LISTS - 1:
        return BootRelocations(lists[0], _NOTHING, lists[1])
    return BootRelocations(_NOTHING, _NOTHING, _NOTHING)


def linker_relocations(elf: ElfFile) -> BootRelocations:
    """Make the lists from the relocations that a linker kept, as relocs.c does; empty ones where there are none."""
    symbols, _ = elf.symbols()
    per_cpu = elf.find(_PER_CPU)
    home = np.append(symbols["shndx"].astype(np.int64), _ABSOLUTE)
    own = per_cpu.number if per_cpu is not None and not per_cpu.address else -1
    parts: list[list[U64]] = [[_NOTHING], [_NOTHING], [_NOTHING]]
    for section in elf.sections:
        if not section.flags & ALLOC or section.number == own:
            continue
        rows = elf.relocations(section)
        shndx = home[np.minimum(rows["symbol"], len(symbols))]
        moves = (shndx != _ABSOLUTE) & (shndx != own) & (shndx != 0)
        for chosen, mask in (
            (0, moves & _is_one(rows["type"], _NARROW)),
            (1, (shndx == own) & _is_one(rows["type"], _DISTANCES)),
            (2, moves & (rows["type"] == _WIDE)),
        ):
            parts[chosen].append(rows["offset"][mask])
    return BootRelocations(*(np.concatenate(part) for part in parts))


def _is_one(kinds: "npt.NDArray[np.uint32]", wanted: tuple[int, ...]) -> Mask:
    found: Mask = np.zeros(len(kinds), np.bool_)
    for kind in wanted:
        found |= kinds == kind
    return found


def kernel_offset(elf: ElfFile, text: int) -> int:
    """How far the kernel was moved, given where its ``_text`` is in memory; 0 for a file without text."""
    section = elf.find(".text")
    return 0 if section is None else text - section.address


def build_kernel(elf: ElfFile, source: str, offset: int, memory: Memory) -> Built:
    """Lay a kernel out, moved by `offset` bytes.

    Args:
        elf: the file.
        source: what to call it.
        offset: how far the kernel was moved.
        memory: gives what stands at an address, where the file does not tell what moves; None where that is missing.

    Raises:
        DecodeError: a section lies outside of the file, or moves to where no kernel runs.
    """
    told = boot_relocations(elf.rest())
    found = told or linker_relocations(elf)
    bounds = _bounds(elf, offset)
    parts = []
    for section in elf.sections:
        if section.flags & ALLOC and section.size and section.kind != _NOBITS and section.address >= _HIGH:
            if not _HIGH <= section.address + offset <= _TOP - section.size:
                raise DecodeError("kernel file", f"{section.name} at {section.address:#x}, moved by {offset:#x}")
            data: U8 = np.frombuffer(elf.content(section), np.uint8).copy()
            if found:
                _move(data, section, found, offset)
            elif section.name == _POINTERS:
                add_at(data, np.arange(0, len(data) - 7, 16), offset, 8)
            if not told:
                _follow(data, section, offset, bounds, memory)
            parts.append(_part(section, data, offset))
    return Built("kernel", source, tuple(parts), moved_by=0 if found else offset)


def _bounds(elf: ElfFile, offset: int) -> tuple[int, int]:
    """Half-open range in which the kernel runs."""
    homes = [s for s in elf.sections if s.flags & ALLOC and s.address >= _HIGH]
    return min((s.address for s in homes), default=0) + offset, max(
        (s.address + s.size for s in homes), default=0
    ) + offset


def _follow(data: U8, section: Section, offset: int, bounds: tuple[int, int], memory: Memory) -> None:
    """Take 32-bit numbers as moved where memory has them moved by exactly the offset.

    Either forth, and then they are addresses in the kernel, or such less ``__START_KERNEL_map`` or less where the
    kernel is linked; or back, and then they were distances to per-CPU variables, which are linked from 0 on.
    """
    if not offset:
        return
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE + 3]
        found = memory(section.address + offset + start, len(piece))
        if found is None:
            continue
        seen = np.frombuffer(found, np.uint8)
        for distance in range(4):
            at = np.flatnonzero(piece != seen) - distance
            at = at[(at >= 0) & (at <= len(piece) - 4)]
            index = at[:, None] + np.arange(4)
            built, mine = _words(piece[index]), _words(seen[index])
            forth = ((mine - built) % _NARROWED == offset % _NARROWED) & (
                _within(mine, bounds, 0) | _within(mine, bounds, _MAP) | _within(mine, bounds, bounds[0] - offset)
            )
            linked = (built + (section.address + start + 4) % _NARROWED + at) % _NARROWED
            back = ((mine - built) % _NARROWED == -offset % _NARROWED) & (linked < _MOST_PER_CPU)
            piece[index[forth | back]] = seen[index[forth | back]]


def _within(words: I64, bounds: tuple[int, int], base: int) -> Mask:
    """Which words may be the lower halves of addresses in the kernel less `base`."""
    found: Mask = (words >= (bounds[0] - base) % _NARROWED) & (words < (bounds[1] - base) % _NARROWED)
    return found


def _words(rows: U8) -> I64:
    words: I64 = np.ascontiguousarray(rows).view("<u4").reshape(-1).astype(np.int64)
    return words


def _part(section: Section, data: U8, offset: int) -> Part:
    return Part(
        name=section.name,
        address=section.address + offset,
        data=data,
        executable=bool(section.flags & EXEC),
        writable=bool(section.flags & WRITE),
    )


def _move(data: U8, section: Section, found: BootRelocations, offset: int) -> None:
    for places, change, width in ((found.narrow, offset, 4), (found.inverse, -offset, 4), (found.wide, offset, 8)):
        add_at(data, offsets_in(places, section.address, len(data), width), change, width)


def offsets_in(places: U64, start: int, size: int, width: int) -> I64:
    """Offsets from `start` of the places that have `width` bytes within ``[start, start + size)``."""
    at = (places - np.uint64(start)).astype(np.int64)
    kept: I64 = at[(at >= 0) & (at <= size - width)]
    return kept


def add_at(data: U8, at: I64, change: int, width: int) -> None:
    """Add to the little-endian numbers of `width` bytes at each offset, modulo their width."""
    kind: npt.DTypeLike = "<u4" if width == 4 else "<u8"  # noqa: PLR2004 - the other width is eight
    index = at[:, None] + np.arange(width)
    values = np.ascontiguousarray(data[index]).view(kind).reshape(-1)
    moved = values + np.array(change % (1 << 8 * width), kind)
    data[index] = moved.view(np.uint8).reshape(-1, width)
