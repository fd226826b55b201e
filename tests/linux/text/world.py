"""A machine that a test builds page by page: real page tables, a real reader, a real kernel object over them."""

from collections.abc import Mapping

import drgn
import numpy as np

from hypervigil.core.facts import Observed
from hypervigil.core.units import PAGE_SIZE, PhysAddr
from hypervigil.facts.pointers import Section
from hypervigil.linux.modules import Area, Module
from hypervigil.linux.system import System
from hypervigil.linux.text.code import I64, U64, Code
from hypervigil.linux.text.kprobes import Probe, Probes
from hypervigil.linux.text.landing import Landing, ranges
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.registry import Registry
from hypervigil.linux.text.sites import Table
from hypervigil.linux.text.thunks import Thunks
from hypervigil.linux.text.tracers import Tracer, Tracers
from hypervigil.memory.kernel import Kernel
from hypervigil.memory.locate import Location, Search
from hypervigil.memory.mapped import MappedMemory, Piece
from hypervigil.memory.symbols import Symbols

TEXT = 0xFFFF_FFFF_8100_0000
TEXT_END = TEXT + 0x4000
DATA = 0xFFFF_FFFF_8200_0000
MODULE = 0xFFFF_FFFF_C000_0000
MODULE_END = MODULE + 0x2000
WILD = 0xFFFF_FFFF_C100_0000
"""Executable memory that belongs to nobody."""

_PRESENT_WRITABLE = 3
_NO_EXECUTE = 1 << 63
_LEVELS = (39, 30, 21, 12)


def u64(*values: int) -> U64:
    return np.array(values, np.uint64)


def registers(*values: int) -> I64:
    return np.array(values, np.int64)


def rel(opcode: bytes, at: int, target: int) -> bytes:
    """A relative branch of 32 bits."""
    distance = target - at - len(opcode) - 4
    return opcode + distance.to_bytes(4, "little", signed=True)


def table(at: int, *places: int) -> Table:
    """A table of 32-bit distances to places, that stands at an address."""
    rows = [(place - at - 4 * index).to_bytes(4, "little", signed=True) for index, place in enumerate(places)]
    return Table(at, b"".join(rows))


class World:
    """Pages, symbols and types, from which a system is made."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}
        self.executable: set[int] = set()
        self.names: list[tuple[int, str, str]] = []
        self.modules: list[tuple[Module, list[tuple[int, int, str]]]] = []
        self.types: dict[str, list[tuple[str, int, int]]] = {}
        for low, high in ((TEXT, TEXT_END), (MODULE, MODULE_END), (WILD, WILD + PAGE_SIZE)):
            self.put(low, b"\xcc" * (high - low), executable=True)
        self.put(DATA, bytes(4 * PAGE_SIZE))
        self.struct("alt_instr", ("instr_offset", 0, 4), ("replacementlen", 11, 1))
        self.struct("bug_entry", ("bug_addr_disp", 0, 4), ("flags", 10, 2))
        for name, address in (("_stext", TEXT), ("_etext", TEXT_END), ("_sdata", DATA), ("_edata", DATA + 0x4000)):
            self.symbol(name, address)

    def put(self, address: int, data: bytes, *, executable: bool = False) -> None:
        """Write bytes, page by page."""
        while data:
            page, inside = address & ~0xFFF, address & 0xFFF
            part = data[: PAGE_SIZE - inside]
            self.pages.setdefault(page, bytearray(PAGE_SIZE))[inside : inside + len(part)] = part
            if executable:
                self.executable.add(page)
            address, data = address + len(part), data[len(part) :]

    def number(self, address: int, value: int, size: int = 8) -> None:
        self.put(address, (value % (1 << 8 * size)).to_bytes(size, "little"))

    def symbol(self, name: str, address: int, kind: str = "T") -> int:
        self.names.append((address, name, kind))
        return address

    def struct(self, name: str, *members: tuple[str, int, int]) -> None:
        """Describe a type by its members: name, byte offset, size of an unsigned number; a dot goes inside."""
        self.types[name] = list(members)

    def whole(self) -> None:
        """Describe what makes executable memory, so that nothing of it is unknown: there is none."""
        self.struct("vmap_area", ("list", 0, 8))
        self.struct("bpf_prog", ("aux", 0, 8), ("bpf_func", 8, 8), ("jited_len", 16, 4))
        self.struct("bpf_prog_aux", ("prog", 0, 8))
        self.struct("module", ("state", 0, 4))
        self.struct("ftrace_ops", ("func", 0, 8))
        head = self.symbol("vmap_area_list", DATA + 0x700, "D")
        self.number(head, head)
        self.number(head + 8, head)

    def module(self, name: str, *symbols: tuple[int, int, str], state: str = "live") -> Module:
        """Load a module whose text fills its place; symbols are address, size, name."""
        areas = (Area(MODULE, MODULE_END, Section.TEXT),)
        made = Module(name=name, address=DATA + 0x3000, state=state, areas=areas, size=0x400)
        self.modules.append((made, list(symbols)))
        return made

    def kernel(self) -> Kernel:
        root, image = _image(self.pages, self.executable)
        whole = [Piece(0, len(image), 0)]
        memory = MappedMemory(memoryview(image), whole, evidence="image", format_name="elf", zero_is_missing=False)
        location = Location(root=PhysAddr(root), levels=4, phys_base=0)
        kernel = Kernel(memory, Search(location, (), ()), location)
        kernel.use_symbols(symbols_of(self.names, "kallsyms"))
        for name, members in self.types.items():
            kernel._types[f"struct {name}"] = _struct(kernel.program, name, members)
        return kernel

    def system(self) -> System:
        system = System(self.kernel())
        system.__dict__["modules"] = Observed(tuple(module for module, _ in self.modules))
        for module, symbols in self.modules:
            sizes = np.array([size for _, size, _ in symbols], np.uint64)
            rows = [(address, name, "t") for address, _, name in symbols]
            system._symbols[module.name] = symbols_of(rows, module.name, sizes)
        return system


def symbols_of(rows: list[tuple[int, str, str]], source: str, sizes: U64 | None = None) -> Symbols:
    addresses = np.array([address for address, _, _ in rows], np.uint64)
    return Symbols(addresses, [name for _, name, _ in rows], "".join(kind for _, _, kind in rows), source, sizes)


def place(
    world: World,
    tables: Mapping[str, Table] | None = None,
    *,
    owner: str = "kernel",
    thunks: Thunks | None = None,
    tracers: Tracers | None = None,
    original: bytes | None = None,
) -> Place:
    """The text of the kernel or of the only module of a world, and what is registered."""
    system = world.system()
    low, high = (TEXT, TEXT_END) if owner == "kernel" else (MODULE, MODULE_END)
    code = Code(owner, low, system.kernel.space.read(low, high - low))  # type: ignore[arg-type] # a virtual address
    registry = Registry(
        thunks or Thunks((), u64(), registers()),
        tracers or Tracers(u64(), u64(), (), {}, ()),
        Probes({}, frozenset(), ()),
        landing(system.kernel),
    )
    symbols = system.symbols_of(owner)
    assert symbols is not None
    built = None if original is None else Code(owner, low, original + code.data[len(original) :])
    return Place(system, code, tables or {}, symbols, registry, built)


def landing(kernel: Kernel, made: tuple[tuple[int, int], ...] = ()) -> Landing:
    """The kernel's text, the module's text but for its last 256 bytes, and the wild page, all executable."""
    return Landing(
        kernel=ranges([(TEXT, TEXT_END)]),
        modules=ranges([(MODULE, MODULE_END - 0x100)]),
        made=ranges(made),
        executable=ranges([(TEXT, TEXT_END), (MODULE, MODULE_END), (WILD, WILD + PAGE_SIZE)]),
        space=kernel.space,
    )


def tracer(function: int, *, flags: int = 0, wanted: U64 | None = None, trampoline: int = 0, direct: int = 0) -> Tracer:
    return Tracer(DATA + 0x800, function, flags, wanted, u64(), trampoline, direct)


def probe(at: int, *, handler: int = TEXT, slot: int = 0) -> Probe:
    return Probe(DATA + 0x900, at, 0x55, (handler,), slot)


def _image(pages: dict[int, bytearray], executable: set[int]) -> tuple[int, bytes]:
    """Physical memory that holds the pages and the tables that map them; frame 0 stays empty."""
    frames: list[bytearray] = [bytearray(PAGE_SIZE), bytearray(PAGE_SIZE)]
    tables: dict[tuple[int, int], int] = {(0, 0): 1}
    for page, data in sorted(pages.items()):
        above = 1
        for depth, shift in enumerate(_LEVELS[:-1], 1):
            key = (depth, page >> shift)
            if key not in tables:
                frames.append(bytearray(PAGE_SIZE))
                tables[key] = len(frames) - 1
                _entry(frames[above], page >> shift, tables[key] << 12 | _PRESENT_WRITABLE)
            above = tables[key]
        frames.append(data)
        rights = 0 if page in executable else _NO_EXECUTE
        _entry(frames[above], page >> _LEVELS[-1], (len(frames) - 1) << 12 | _PRESENT_WRITABLE | rights)
    return PAGE_SIZE, b"".join(frames)


def _entry(frame: bytearray, index: int, value: int) -> None:
    at = 8 * (index & 511)
    frame[at : at + 8] = value.to_bytes(8, "little")


def _struct(program: drgn.Program, name: str, members: list[tuple[str, int, int]]) -> drgn.Type:
    """A type with numbers for members; what has a dot in its name goes into a type of its own."""
    fields: list[drgn.TypeMember] = []
    nested: dict[str, list[tuple[str, int, int]]] = {}
    for path, offset, size in members:
        outer, _, inner = path.partition(".")
        if inner:
            nested.setdefault(outer, []).append((inner, offset, size))
        else:
            fields.append(drgn.TypeMember(program.int_type(f"u{8 * size}", size, False), path, 8 * offset))  # noqa: FBT003 - drgn's
    for outer, inside in nested.items():
        start = min(offset for _, offset, _ in inside)
        kind = _struct(program, outer, [(path, offset - start, size) for path, offset, size in inside])
        fields.append(drgn.TypeMember(kind, outer, 8 * start))
    end = max(offset + size for _, offset, size in members)
    return program.struct_type(name, end, fields)
