"""Objects in memory and the files they were built as, brought together by their build ids."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hypervigil.core.errors import EvidenceError
from hypervigil.core.units import VirtAddr
from hypervigil.facts.pointers import Section as Kind
from hypervigil.linux.members import has, number
from hypervigil.linux.modules import Module, module_sections
from hypervigil.linux.system import KERNEL, System
from hypervigil.linux.text.jump_labels import SECTION as JUMP_LABELS
from hypervigil.linux.text.sites import Table
from hypervigil.linux.text.static_calls import SECTION as STATIC_CALLS
from hypervigil.linux.vendor.built import Built
from hypervigil.linux.vendor.elf import EXEC, ElfFile, Section
from hypervigil.linux.vendor.files import KERNEL_FILE, Source, each_object
from hypervigil.linux.vendor.identity import loaded_build_id, loaded_srcversion, modinfo_of, running_build_id
from hypervigil.linux.vendor.kernel_file import build_kernel, kernel_offset
from hypervigil.linux.vendor.module_file import Loaded, build_module, is_kept

_BETWEEN_SYMBOLS = (
    (JUMP_LABELS, "__start___jump_table", "__stop___jump_table"),
    (STATIC_CALLS, "__start_static_call_sites", "__stop_static_call_sites"),
)
_TEXT, _CONSTANTS, _DATA = ".text", ".rodata", ".data"
"""Where a kernel's text, its constants and its data begin (arch/x86/kernel/vmlinux.lds.S)."""

_SLACK = 8
_GLOBAL = frozenset("ABCDRTVW")


class Stray(NamedTuple):
    """A section that cannot be compared, since it is not known where it is."""

    name: str
    executable: bool


class Match(NamedTuple):
    """An object that is in memory as a file has it.

    Attributes:
        module: the module; None for the kernel.
        built: the object as built, laid out where it is.
        tables: its tables of patch sites, as built.
        unresolved: symbols that it needs and nobody defines.
        astray: sections of text or constants that are not where such belong, as far as memory says where they are.
    """

    module: Module | None
    built: Built
    tables: Mapping[str, Table]
    unresolved: tuple[str, ...] = ()
    astray: tuple[Stray, ...] = ()

    @property
    def name(self) -> str:
        """``kernel`` or the module's name."""
        return KERNEL if self.module is None else self.module.name


class Mismatch(NamedTuple):
    """An object of which a file has another build.

    Attributes:
        name: ``kernel`` or the module's name.
        found: the build id or digest of sources of the one in memory.
        wanted: that of the file.
        label: the file, in words.
    """

    name: str
    found: str
    wanted: str
    label: str

    def __str__(self) -> str:
        found, wanted = self.found or "without an id", self.wanted or "without an id"
        return f"has {self.name} of build {wanted}, in memory is build {found}"


class Failure(NamedTuple):
    """An object of a file, or a file (then `name` is empty), that could not be used, and why."""

    name: str
    label: str
    why: str


def each_match(system: System, source: Source) -> Iterator[Match | Mismatch | Failure]:
    """Everything that a file says of the objects in memory; one object at a time, so that none need be kept."""
    wanted = {module.name: module for module in system.modules.items}
    try:
        for name, data in each_object(source, frozenset(wanted)):
            try:
                elf = ElfFile(data)
                if name == KERNEL_FILE:
                    yield _kernel(system, source, elf)
                else:
                    yield _module(system, source, elf, wanted[name])
            except EvidenceError as fault:
                yield Failure(name, source.label, str(fault))
    except EvidenceError as fault:
        yield Failure("", source.label, str(fault))


def _kernel(system: System, source: Source, elf: ElfFile) -> Match | Mismatch:
    found, wanted = running_build_id(system.kernel), elf.build_id()
    if not found or found != wanted:
        return Mismatch(KERNEL, found, wanted, source.label)
    symbols = system.kernel.symbols
    offset = kernel_offset(elf, symbols.address("_text"))
    built = build_kernel(elf, source.label, offset, lambda address, size: _seen(system, address, size))
    tables = built.tables()
    for section, low, high in _BETWEEN_SYMBOLS:
        start, end = symbols.find(low), symbols.find(high)
        if start is not None and end is not None and start < end:
            tables[section] = Table(start, built.piece(start, end - start))
    return Match(None, built, tables, astray=tuple(_kernel_strays(system, built)))


def _kernel_strays(system: System, built: Built) -> Iterator[Stray]:
    """Text and constants that lie outside of the bounds that the symbols give the kernel's."""
    starts = {part.name: part.address for part in built.parts}
    first = starts.get(_CONSTANTS, 0)
    for part in built.parts:
        if part.name == _TEXT:
            low, high = "_stext", "_etext"
        elif part.name == _CONSTANTS or (not part.executable and first < part.address < starts.get(_DATA, 0)):
            low, high = "__start_rodata", "__end_rodata"
        else:
            continue
        start, end = system.kernel.symbols.find(low), system.kernel.symbols.find(high)
        if start is None or end is None or not (start <= part.address and part.end <= end):
            yield Stray(part.name, part.executable)


def _seen(system: System, address: int, size: int) -> bytes | None:
    try:
        return system.kernel.space.read(VirtAddr(address), size)
    except EvidenceError:
        return None


def _module(system: System, source: Source, elf: ElfFile, module: Module) -> Match | Mismatch:
    kernel = system.kernel
    places = module_sections(kernel, module)
    found, wanted = loaded_build_id(kernel, places), elf.build_id()
    if not (found and wanted):
        found, wanted = loaded_srcversion(kernel, module), modinfo_of(elf, "srcversion")
    if not found or found != wanted:
        return Mismatch(module.name, found, wanted, source.label)
    per_cpu = number(kernel.object("struct module", module.address), "percpu")
    unloads = has(kernel.type("struct module"), "exit")
    needed = tuple(name.replace("-", "_") for name in modinfo_of(elf, "depends").split(",") if name)
    loaded = Loaded(module.name, places, per_cpu, lambda name: _defined(system, name, needed), unloads)
    laid = build_module(elf, source.label, loaded)
    laid.built.settle(_own_places(system, module, laid.unplaced))
    laid.built.settle((at, data) for at, width in laid.open if (data := _seen(system, at, width)) is not None)
    astray = [
        section for section in elf.sections if is_kept(section, unloads=unloads) and _is_astray(section, loaded, module)
    ]
    return Match(
        module,
        laid.built,
        laid.built.tables(),
        laid.undefined,
        tuple(Stray(one.name, bool(one.flags & EXEC)) for one in astray),
    )


def _is_astray(section: Section, loaded: Loaded, module: Module) -> bool:
    """Whether a section of text or constants is not in memory of the module that is for such."""
    start = loaded.places.get(section.name)
    wanted = Kind.TEXT if section.flags & EXEC else Kind.RODATA
    return start is None or not any(
        area.section is wanted and not area.after_init and area.start <= start and start + section.size <= area.end
        for area in module.areas
    )


def _own_places(
    system: System, module: Module, places: tuple[tuple[int, int, bool], ...]
) -> Iterator[tuple[int, bytes]]:
    """What stands at places that refer to empty sections, as far as it leads to the module's own memory."""
    for address, width, from_place in places:
        try:
            data = system.kernel.space.read(VirtAddr(address), width)
        except EvidenceError:
            continue
        value = int.from_bytes(data, "little", signed=True) + (address if from_place else 0)
        if any(area.start - _SLACK <= value % (1 << 64) <= area.end for area in module.areas):
            yield address, data


def _defined(system: System, name: str, needed: tuple[str, ...]) -> int | None:
    """The address of a symbol that the kernel or a module gives to others.

    A global one of the kernel's comes first; else one of the modules that the file says it needs, never of another:
    whoever loads a module could give its functions the names of others'.
    """
    symbols = system.kernel.symbols
    found = symbols.all_of(name)
    shared = [at for at in found if _is_global(system, name, at)]
    if shared:
        return shared[0]
    given: VirtAddr | None = system.find(name, *needed)
    return given if given is not None else next(iter(found), None)


def _is_global(system: System, name: str, address: int) -> bool:
    symbols = system.kernel.symbols
    return any(symbols.names[i] == name and symbols.types[i] in _GLOBAL for i in symbols.between(address, address + 1))
