"""A module's file laid out where the module was loaded: every section at its place, every relocation applied.

Linux kernel/module/main.c (simplify_symbols) and arch/x86/kernel/module.c (apply_relocate_add); types and formulas
from the System V psABI for x86-64, section 4.4.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from hypervigil.core.errors import DecodeError, UnsupportedEvidence
from hypervigil.linux.text.code import U8, U64
from hypervigil.linux.vendor.built import Built, Part
from hypervigil.linux.vendor.elf import ALLOC, EXEC, WRITE, ElfFile, Rows, Section, text_at

_UNDEFINED, _ABSOLUTE = 0, 0xFFF1
_PER_CPU = ".data..percpu"
_INIT, _EXIT = ".init", ".exit"
_NOT_KEPT = frozenset({".modinfo", "__versions", "__version_ext_crcs", "__version_ext_names"})
"""Sections that the loader reads and does not load (rewrite_section_headers, elf_validity_cache_copy)."""

_NOBITS = 8
_WEAK = 2
_MODULO = 1 << 64
_FORMULAS = {1: (8, False), 2: (4, True), 4: (4, True), 10: (4, False), 11: (4, False), 24: (8, True)}
"""Width in bytes and whether the place counts, of R_X86_64_64, PC32, PLT32, 32, 32S, PC64."""

Resolve = Callable[[str], int | None]
"""Gives the address of a symbol that another object defines."""


class Loaded(NamedTuple):
    """Where a module was loaded.

    Attributes:
        name: the module's.
        places: virtual address of each section by its name.
        per_cpu: address of its per-CPU variables.
        resolve: gives the addresses of other objects' symbols.
        unloads: whether its kernel can unload modules; else what they need for that is freed with their init memory.
    """

    name: str
    places: Mapping[str, int]
    per_cpu: int
    resolve: Resolve
    unloads: bool = True


class Laid(NamedTuple):
    """A module laid out.

    Attributes:
        built: its sections.
        undefined: names of symbols that nobody defines.
        open: places, each with its width, that refer to such symbols: what stands there cannot be told.
        unplaced: places, each with its width and whether it counts from itself, that refer to sections whose own place
            is not known: the loader does not list empty ones, but gives them an address.
    """

    built: Built
    undefined: tuple[str, ...]
    open: tuple[tuple[int, int], ...]
    unplaced: tuple[tuple[int, int, bool], ...]


def build_module(elf: ElfFile, source: str, loaded: Loaded) -> Laid:
    """Lay a module out.

    Raises:
        DecodeError: a section lies outside of the file, or a relocation outside of its section or of the symbols.
        UnsupportedEvidence: a relocation of a type that kernels do not apply.
    """
    bases = _bases(elf, loaded)
    rows, strings = elf.symbols()
    undefined: dict[str, None] = {}
    unplaced: list[tuple[int, int, bool]] = []
    unknown: list[tuple[int, int]] = []
    parts = []
    for section in elf.sections:
        if section.number not in bases or section.kind == _NOBITS or section.name == _PER_CPU:
            continue
        base = bases[section.number]
        data: U8 = np.frombuffer(elf.content(section), np.uint8).copy()
        relocations = _sound(elf.relocations(section), section, len(data), len(rows))
        numbers = relocations["symbol"].tolist()
        known = {number: _value(rows, number, strings, bases, loaded.resolve, undefined) for number in set(numbers)}
        values = np.array([(known[number] or 0) % _MODULO for number in numbers], np.uint64)
        _apply(data, base, relocations, values)
        for number, kind, offset in zip(
            numbers, relocations["type"].tolist(), relocations["offset"].tolist(), strict=True
        ):
            if known[number] is None and _is_home_of(rows, number):
                unplaced.append((base + offset, *_FORMULAS[kind]))
            elif known[number] is None:
                unknown.append((base + offset, _FORMULAS[kind][0]))
        executable, writable = bool(section.flags & EXEC), bool(section.flags & WRITE)
        parts.append(Part(section.name, base, data, executable, writable))
    return Laid(Built(loaded.name, source, tuple(parts)), tuple(undefined), tuple(unknown), tuple(unplaced))


def is_kept(section: Section, *, unloads: bool) -> bool:
    """Whether a module keeps a section of text or constants as long as it is loaded."""
    name = section.name
    if not section.flags & ALLOC or section.flags & WRITE or not section.size or section.kind == _NOBITS:
        return False
    if name in _NOT_KEPT or name == _PER_CPU:
        return False
    return not name.startswith(_INIT if unloads else (_INIT, _EXIT))


def _sound(relocations: Rows, section: Section, size: int, symbols: int) -> Rows:
    """The relocations of a section that the loader would apply, each within the section and with a symbol.

    Raises:
        DecodeError: one has no place in the section, or no symbol.
    """
    rows: Rows = relocations[relocations["type"] != 0]
    widths = np.array([_FORMULAS.get(kind, (0, False))[0] for kind in rows["type"].tolist()], np.uint64)
    fits = (rows["offset"] <= np.uint64(size)) & (
        widths <= np.uint64(size) - np.minimum(rows["offset"], np.uint64(size))
    )
    if not fits.all() or (rows["symbol"] >= symbols).any():
        raise DecodeError("module", f"a relocation of {section.name} outside of it, or of a symbol that is none")
    return rows


def _bases(elf: ElfFile, loaded: Loaded) -> dict[int, int]:
    """Address of each section by its number."""
    found: dict[int, int] = {}
    for section in elf.sections:
        if section.flags & ALLOC and section.size:
            base = loaded.per_cpu if section.name == _PER_CPU else loaded.places.get(section.name)
            if base is not None:
                found[section.number] = base
    return found


def _value(
    rows: Rows, number: int, strings: bytes, bases: Mapping[int, int], resolve: Resolve, undefined: dict[str, None]
) -> int | None:
    """The value of a symbol; None where the place of its section is not known, or nobody defines it, which is noted."""
    row = rows[number]
    home, value = int(row["shndx"]), int(row["value"])
    if home == _ABSOLUTE:
        return value
    if home != _UNDEFINED:
        base = bases.get(home)
        return None if base is None else base + value
    name = text_at(strings, int(row["name"]))
    found = resolve(name) if name else 0
    if found is None and int(row["info"]) >> 4 != _WEAK:
        undefined[name] = None
        return None
    return found or 0


def _is_home_of(rows: Rows, number: int) -> bool:
    """Whether a symbol is one of the module's own."""
    return bool(rows["shndx"][number] != _UNDEFINED)


def _apply(data: U8, base: int, relocations: Rows, values: U64) -> None:
    kinds = relocations["type"]
    for kind in sorted(set(kinds.tolist())):
        if kind not in _FORMULAS:
            raise UnsupportedEvidence(f"a module with relocations of type {kind}")
        width, from_place = _FORMULAS[kind]
        chosen = np.flatnonzero(kinds == kind)
        at = relocations["offset"][chosen].astype(np.int64)
        result = values[chosen] + relocations["addend"][chosen].astype(np.uint64)
        if from_place:
            result = result - (np.uint64(base) + at.astype(np.uint64))
        data[at[:, None] + np.arange(width)] = result.view(np.uint8).reshape(-1, 8)[:, :width]
