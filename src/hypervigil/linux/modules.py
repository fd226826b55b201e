"""Kernel modules: where each one's memory is, its symbols, and the structures that know of it.

``struct module`` (include/linux/module.h). Its memory was ``core_layout``/``init_layout`` until 6.3 and is ``mem[]``
since ac3b43283923 "module: replace module_layout with module_memory" (6.4).
"""

import drgn
import msgspec
import numpy as np

from hypervigil.core.errors import EvidenceError, MissingDescription, MissingMemory
from hypervigil.core.facts import Gap, Observed
from hypervigil.core.units import VirtAddr
from hypervigil.decode.btf import Btf
from hypervigil.decode.btf_sections import MAX_SIZE as MAX_BTF
from hypervigil.facts.pointers import Section
from hypervigil.linux.lists import walk_list, walk_tree
from hypervigil.linux.members import element, has, member, number, offset_of, text
from hypervigil.memory.kernel import Kernel
from hypervigil.memory.symbols import Symbols

_STATES = ("live", "coming", "going", "unformed")
_MEM = (
    Section.TEXT,
    Section.DATA,
    Section.RODATA,
    Section.RODATA,  # read-only after init
    Section.INIT,
    Section.INIT,
    Section.INIT,
)
_MEM_RO_AFTER_INIT = 3
_MAX_SYMBOLS = 1 << 20
_MAX_MODULE = 1 << 28
_RB_NODE = 24
_MAX_STRINGS = 1 << 24
_MAX_SECTIONS = 512
_SYM_SIZE = 24
_ELF_SYM = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2"), ("value", "<u8"), ("size", "<u8")]
)


class Area(msgspec.Struct, frozen=True, order=True):
    """A stretch of a module's memory: half-open ``[start, end)``, virtual."""

    start: int
    end: int
    section: Section
    after_init: bool = False


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded module.

    Attributes:
        name: as it names itself.
        address: virtual address of its ``struct module``.
        state: live, coming, going, unformed.
        areas: its memory, sorted.
        size: bytes of ``struct module``.
    """

    name: str
    address: int
    state: str
    areas: tuple[Area, ...]
    size: int

    def section_at(self, address: int) -> Section:
        """What kind of memory of this module `address` lies in."""
        return next((a.section for a in self.areas if a.start <= address < a.end), Section.NOWHERE)


def read_module(kernel: Kernel, address: int) -> Module:
    """Read one ``struct module``.

    Raises:
        MissingMemory: it is not in the image.
        MissingDescription: its type is not known, or what stands there is no module.
    """
    thing = kernel.object("struct module", address)
    state = number(thing, "state")
    name = text(thing, "name")
    if state >= len(_STATES) or not name.isprintable() or not name:
        raise MissingDescription(f"what stands at {address:#x} is no module")
    areas = _areas_by_type(kernel, address) if has(thing, "mem") else _areas_by_layout(kernel, address)
    size = thing.type_.size or 0
    return Module(name=name, address=address, state=_STATES[state], areas=tuple(sorted(areas)), size=size)


def _areas_by_type(kernel: Kernel, address: int) -> list[Area]:
    thing = kernel.object("struct module", address)
    areas = []
    for index, section in enumerate(_MEM):
        part = element(member(thing, "mem"), index)
        base, size = number(part, "base"), number(part, "size")
        if base and 0 < size <= _MAX_MODULE:
            areas.append(Area(base, base + size, section, index == _MEM_RO_AFTER_INIT))
    return areas


def _areas_by_layout(kernel: Kernel, address: int) -> list[Area]:
    thing = kernel.object("struct module", address)
    base = number(thing, "core_layout.base")
    cuts = [0, *(number(thing, f"core_layout.{n}") for n in ("text_size", "ro_size", "ro_after_init_size", "size"))]
    areas = []
    for index, section in enumerate((Section.TEXT, Section.RODATA, Section.RODATA, Section.DATA)):
        low, high = cuts[index], cuts[index + 1]
        if base and low < high <= _MAX_MODULE:
            areas.append(Area(base + low, base + high, section, index == 2))  # noqa: PLR2004 - the third cut
    start, size = number(thing, "init_layout.base"), number(thing, "init_layout.size")
    if start and 0 < size <= _MAX_MODULE:
        areas.append(Area(start, start + size, Section.INIT))
    return areas


def listed_modules(kernel: Kernel) -> Observed[int]:
    """Addresses of the modules on the list that lsmod prints."""
    offset = offset_of(kernel.type("struct module"), "list")
    return walk_list(kernel.space, kernel.symbols.address("modules"), offset, "module list")


def modules_in_tree(kernel: Kernel) -> Observed[int]:
    """Addresses of the modules in ``mod_tree``, by which the kernel finds the module that an address belongs to.

    A latched pair of trees (include/linux/rbtree_latch.h); a reader uses one while a writer changes the other.
    """
    tree = kernel.variable("mod_tree", "struct mod_tree_root")
    offset = offset_of(kernel.type("struct mod_tree_node"), "node")
    found: dict[int, None] = {}
    gaps: list[Gap] = []
    for half in range(2):
        side = element(member(tree, "root.tree"), half)
        node_offset = offset + half * _RB_NODE
        walked = walk_tree(kernel.space, number(side, "rb_node"), node_offset, f"address tree, half {half}")
        gaps += walked.gaps
        for entry in walked.items:
            found[number(kernel.object("struct mod_tree_node", entry), "mod")] = None
    return Observed(tuple(found), tuple(gaps))


def modules_in_sysfs(kernel: Kernel) -> Observed[int]:
    """Addresses of the modules that have a folder in /sys/module; those built into the kernel have none here."""
    kset = kernel.space.u64(kernel.symbols.address("module_kset"))
    kobject = offset_of(kernel.type("struct module_kobject"), "kobj")
    entry = offset_of(kernel.type("struct kobject"), "entry")
    head = kset + offset_of(kernel.type("struct kset"), "list")
    walked = walk_list(kernel.space, head, kobject + entry, "sysfs")
    modules = [number(kernel.object("struct module_kobject", item), "mod") for item in walked.items]
    return Observed(tuple(m for m in modules if m), walked.gaps)


def modules_with_bugs(kernel: Kernel) -> Observed[int]:
    """Addresses of the modules on ``module_bug_list`` (lib/bug.c): every module that was loaded, while it is live."""
    offset = offset_of(kernel.type("struct module"), "bug_list")
    return walk_list(kernel.space, kernel.symbols.address("module_bug_list"), offset, "bug list")


def modules_with_types(kernel: Kernel) -> Observed[tuple[int, int]]:
    """``(struct module, struct btf)`` of every module with type information.

    ``btf_modules`` of 36e68442d1af "bpf: Load and verify kernel module BTFs" (5.11).

    Raises:
        MissingDescription: this kernel has no such list.
    """
    offset = offset_of(kernel.type("struct btf_module"), "list")
    walked = walk_list(kernel.space, kernel.symbols.address("btf_modules"), offset, "type information")
    entries = [kernel.object("struct btf_module", item) for item in walked.items]
    return Observed(tuple((number(e, "module"), number(e, "btf")) for e in entries), walked.gaps)


def add_module_types(kernel: Kernel, names: tuple[str, ...]) -> Observed[str]:
    """Make the types of the named modules known to the kernel's catalogue; return those whose types were found."""
    added: list[str] = []
    gaps: list[Gap] = []
    try:
        walked = modules_with_types(kernel)
    except EvidenceError as fault:
        return Observed((), (Gap("types of modules", str(fault)),))
    for _, address in walked.items:
        try:
            thing = kernel.object("struct btf", address)
            name = text(thing, "name")
            if name in names:
                size = min(number(thing, "data_size"), MAX_BTF)
                at = number(thing, "data")
                kernel.catalogue.add(f"BTF of {name}", Btf(kernel.space.read(VirtAddr(at), size), kernel.btf), at)
                added.append(name)
        except EvidenceError as fault:
            gaps.append(Gap(f"types at {address:#x}", str(fault)))
    return Observed(tuple(added), walked.gaps + tuple(gaps))


def module_symbols(kernel: Kernel, module: Module) -> Symbols:
    """The symbols of a module as it keeps them for kallsyms (``struct mod_kallsyms``).

    Raises:
        MissingMemory: they are not in the image.
        MissingDescription: the module keeps none; every module that was loaded has some.
    """
    table = member(kernel.object("struct module", module.address), "kallsyms")
    count, symtab = number(table, "num_symtab"), number(table, "symtab")
    if not 0 < count <= _MAX_SYMBOLS:
        raise MissingDescription(f"module {module.name} keeps {count} symbols")
    rows = np.frombuffer(kernel.space.read(VirtAddr(symtab), count * _SYM_SIZE), _ELF_SYM)
    letters = kernel.space.read(VirtAddr(number(table, "typetab")), count).decode("latin-1")
    kept = (rows["shndx"] != 0) & (rows["name"] != 0) & (rows["name"] < _MAX_STRINGS)
    strtab = number(table, "strtab")
    places = rows["name"][kept].astype(np.int64)
    strings = _strings(kernel, strtab, int(places.max(initial=0)) + 512)
    names = [strings[at : strings.find(b"\0", at)].decode("latin-1") for at in places.tolist()]
    types = "".join(letters[i] for i in np.flatnonzero(kept).tolist())
    source = f"the symbols of module {module.name}"
    return Symbols(rows["value"][kept].astype(np.uint64), names, types, source, rows["size"][kept].astype(np.uint64))


def _strings(kernel: Kernel, start: int, size: int) -> bytes:
    """Read a string table whose length is not known: to the last name and a little further, if that is mapped."""
    try:
        return kernel.space.read(VirtAddr(start), size)
    except MissingMemory:
        page = (start + size) & ~0xFFF
        return kernel.space.read(VirtAddr(start), page - start)


def module_sections(kernel: Kernel, module: Module) -> dict[str, int]:
    """Address of each section by its name, as /sys/module/NAME/sections has them.

    Until 6.13 ``struct module_sect_attrs`` counts its sections and names their addresses; from 6.14 on these are
    attributes whose ``private`` is the address: d8959b947a8d "module: sysfs: Drop member
    'module_sect_attrs::nsections'" and 4b2c11e4aaf7 "module: sysfs: Drop member 'module_sect_attr::address'".

    Raises:
        MissingDescription: the module has no such list.
        MissingMemory: it is not in the image.
    """
    address = number(kernel.object("struct module", module.address), "sect_attrs")
    if not address:
        raise MissingDescription(f"module {module.name} keeps no list of its sections")
    attributes = kernel.object("struct module_sect_attrs", address)
    if has(attributes, "nsections"):
        found = [
            element(member(attributes, "attrs"), i) for i in range(min(number(attributes, "nsections"), _MAX_SECTIONS))
        ]
        entries = [(member(e, "battr"), number(e, "address")) for e in found]
    else:
        entries = [(e, number(e, "private")) for e in _binary_attributes(kernel, attributes)]
    return {kernel.space.text(VirtAddr(number(e, "attr.name")), 64): place for e, place in entries}


def _binary_attributes(kernel: Kernel, attributes: drgn.Object) -> list[drgn.Object]:
    pointers = number(attributes, "grp.bin_attrs", "grp.bin_attrs_new")
    found = []
    for index in range(_MAX_SECTIONS):
        address = kernel.space.u64(VirtAddr(pointers + 8 * index))
        if not address:
            break
        found.append(kernel.object("struct bin_attribute", address))
    return found
