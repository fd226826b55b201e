"""A kernel's file laid out where the kernel runs.

A kernel is linked at a fixed address and moved by its KASLR offset when it starts: the decompressor adds the offset at
every place of a list that follows the ELF file in a bzImage (arch/x86/boot/compressed/misc.c, handle_relocations;
arch/x86/tools/relocs.c). The list is read from its end: 32-bit places up to a zero, then, until 6.14, places of
distances to per-CPU variables, which shrink by the offset, up to a zero, then 64-bit places. a8327be7b2aa "x86/boot:
Remove inverse relocations" (6.15) dropped those in the middle. A file without the list, such as a vmlinux with
symbols, does not tell its places; there a number that differs by exactly the offset counts as moved.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hypervigil.linux.text.code import I64, U8, U64
from hypervigil.linux.vendor.built import Built, Part
from hypervigil.linux.vendor.elf import ALLOC, EXEC, WRITE, ElfFile, Section

_NOBITS = 8
_HIGH = 0xFFFF_FFFF_0000_0000
_LISTS = 3


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
    nothing: U64 = np.array([], np.uint64)
    if len(lists) == _LISTS:
        return BootRelocations(lists[0], lists[1], lists[2])
    if len(lists) == _LISTS - 1:
        return BootRelocations(lists[0], nothing, lists[1])
    return BootRelocations(nothing, nothing, nothing)


def kernel_offset(elf: ElfFile, text: int) -> int:
    """How far the kernel was moved, given where its ``_text`` is in memory; 0 for a file without text."""
    section = elf.find(".text")
    return 0 if section is None else text - section.address


def build_kernel(elf: ElfFile, source: str, offset: int) -> Built:
    """Lay a kernel out, moved by `offset` bytes.

    Raises:
        DecodeError: a section lies outside of the file.
    """
    found = boot_relocations(elf.rest())
    parts = []
    for section in elf.sections:
        if section.flags & ALLOC and section.size and section.kind != _NOBITS and section.address >= _HIGH:
            data: U8 = np.frombuffer(elf.content(section), np.uint8).copy()
            _move(data, section, found, offset)
            parts.append(_part(section, data, offset))
    return Built("kernel", source, tuple(parts))


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
