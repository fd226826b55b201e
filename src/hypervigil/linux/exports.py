"""The tables of exported symbols against kallsyms.

``struct kernel_symbol`` (kernel/module/internal.h) holds distances from its own members to a symbol's address and to
its name: 7290d5809571 "module: use relative references for __ksymtab entries" (4.19).
"""

import msgspec
import numpy as np

from hypervigil.core.errors import EvidenceError, MissingDescription
from hypervigil.core.facts import Gap
from hypervigil.core.units import VirtAddr
from hypervigil.linux.members import offset_of
from hypervigil.memory.kernel import Kernel
from hypervigil.memory.locate import START_KERNEL_MAP

_MAX_EXPORTS = 1 << 17
_MAX_STRINGS = 1 << 23
_MAX_NAME = 512
_DISTANCE = 4


class Disagreement(msgspec.Struct, frozen=True):
    """An export that kallsyms places elsewhere: its entry's address and size, its name, and what is wrong."""

    entry: int
    size: int
    name: str
    message: str


class Comparison(msgspec.Struct, frozen=True):
    """What comparing gave: disagreements, how many entries were compared, and what could not be."""

    items: tuple[Disagreement, ...]
    compared: int
    gaps: tuple[Gap, ...]


def compare_exports(kernel: Kernel) -> Comparison:
    """Compare every exported symbol of the kernel with kallsyms.

    Raises:
        MissingDescription: the kernel's symbols are not known, or it has no such tables.
    """
    items: list[Disagreement] = []
    gaps: list[Gap] = []
    compared = 0
    symbols = kernel.symbols
    for name in ("__ksymtab", "__ksymtab_gpl"):
        try:
            start = symbols.find(f"__start_{name}")
            if start is None:
                continue
            found, count, unsure = _table(kernel, start, symbols.address(f"__stop_{name}"))
        except EvidenceError as fault:
            gaps.append(Gap(name, str(fault)))
            continue
        items += found
        compared += count - unsure
        if unsure:
            gaps.append(Gap(f"{unsure} entries of {name}", f"their symbols may be in a lost part of {symbols.source}"))
    if not compared and not gaps:
        raise MissingDescription("symbol __start___ksymtab was not found")
    return Comparison(tuple(items), compared, tuple(gaps))


def _table(kernel: Kernel, start: VirtAddr, stop: VirtAddr) -> tuple[list[Disagreement], int, int]:
    """What disagrees in a table, how many entries it has, and how many of them kallsyms may have lost."""
    kind = kernel.type("struct kernel_symbol")
    width = kind.size or 0
    count = (stop - start) // width if width else 0
    if not 0 < count <= _MAX_EXPORTS:
        raise MissingDescription(f"{count} exported symbols")
    value_at, name_at = offset_of(kind, "value_offset"), offset_of(kind, "name_offset")
    if max(value_at, name_at) + _DISTANCE > width:
        raise MissingDescription("struct kernel_symbol does not hold its members")
    raw = np.frombuffer(kernel.space.read(start, count * width), np.uint8).reshape(count, width)
    places = np.uint64(start) + np.arange(count, dtype=np.uint64) * np.uint64(width)
    addresses = _relative(raw, places, value_at)
    names_at = _relative(raw, places, name_at)
    low, high = int(names_at.min()), int(names_at.max()) + 1
    if high - low > _MAX_STRINGS:
        raise MissingDescription("the names of exported symbols lie too far apart")
    strings = kernel.space.read(VirtAddr(low), high - low) + kernel.space.text(VirtAddr(high), _MAX_NAME).encode(
        "latin-1"
    )
    strings += b"\0"
    faults = []
    unsure = 0
    for index, (address, at) in enumerate(zip(addresses.tolist(), (names_at - np.uint64(low)).tolist(), strict=True)):
        name = strings[at : strings.find(b"\0", at)].decode("latin-1")
        if kernel.symbols.may_be_lost(name):
            unsure += 1
        elif why := _wrong(kernel, name, address):
            faults.append(Disagreement(int(places[index]), width, name, why))
    return faults, count, unsure


def _relative(
    raw: "np.ndarray[tuple[int, int], np.dtype[np.uint8]]",
    places: "np.ndarray[tuple[int], np.dtype[np.uint64]]",
    offset: int,
) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    distances = np.ascontiguousarray(raw[:, offset : offset + _DISTANCE]).view("<i4").reshape(-1).astype(np.int64)
    result: np.ndarray[tuple[int], np.dtype[np.uint64]] = places + np.uint64(offset) + distances.astype(np.uint64)
    return result


def _wrong(kernel: Kernel, name: str, address: int) -> str:
    """What is wrong with an export, in words. Per-CPU and absolute symbols are not relative, and not compared."""
    known = kernel.symbols.all_of(name)
    if not known:
        return f"exported symbol {name} is not in kallsyms"
    if address in known or any(value < START_KERNEL_MAP for value in known):
        return ""
    return f"kallsyms places {name} at {known[0]:#x}, the export table at {address:#x}"
