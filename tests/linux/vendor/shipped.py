"""A host that runs what a vendor shipped: files of a kernel and of modules, and memory made from these very files.

The kernel is linked lower than it runs; what moves with it is listed behind its file, as the kernel's build does. The
relocation here has nothing in common with the one under test: a number is added, place by place.
"""

import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tests.decode.kallsyms_encoder import KERNEL as PLACE
from tests.decode.kallsyms_encoder import encode
from tests.linux.c_types import CTypes
from tests.linux.kernel_builder import BUILD_ID, RODATA, TEXT, KernelImage, bare_kernel
from tests.linux.linux_types import KERNEL
from tests.linux.module_builder import Module, knit
from tests.linux.vendor import elf_builder as elf
from tests.linux.vendor.elf_builder import Elf, build_id

OFFSET = 0x60_0000
"""How far the kernel was moved."""

INIT = TEXT + 0x20_0000
"""Where init memory was; it is free by now."""

SYMBOLS = INIT + 0x1000
"""Where the kernel's file has its symbol table."""

MODULE_ID = bytes(range(40, 60))
PLAIN_RETURN = b"\xc3\xcc\xcc\xcc\xcc"

_WORD = 1 << 64
_TYPES = {
    "module_sect_attrs": "nsections:u32 attrs:module_sect_attr[16]",
    "module": f"{KERNEL['module']} percpu:ptr srcversion:ptr exit:fn",
    "alt_instr": "instr_offset:i32 repl_offset:i32 cpuid:u16 instrlen:u8 replacementlen:u8",
    "exception_table_entry": "insn:i32 fixup:i32 data:i32",
    "bug_entry": "bug_addr_disp:i32 file_disp:i32 line:u16 flags:u16",
}


def distance(place: int, target: int) -> bytes:
    """A signed distance of 32 bits, counted from where it stands."""
    return struct.pack("<i", target - place)


def jump(place: int, target: int) -> bytes:
    """A near jump."""
    return b"\xe9" + distance(place + 5, target)


class Piece(NamedTuple):
    """A section of the kernel: where it runs, its bytes there, and its flags."""

    name: str
    address: int
    data: bytes
    flags: int


class ShippedKernel:
    """A kernel's file: text with a place of every kind that is patched or moved, and read-only data.

    Attributes:
        pieces: its sections as they are in memory.
        narrow, inverse, wide: addresses, in memory, of what moves with the kernel.
    """

    THUNK = TEXT + 0x100
    READ, WRITE, LABEL, ALTERNATIVE = TEXT + 0x20, TEXT + 0x40, TEXT + 0x80, TEXT + 0xA0
    RETURN, LOCK = READ + 4, WRITE + 0x18
    TEXT_SIZE = 0x400
    CONSTANTS = RODATA + 0x1000
    LATE = CONSTANTS + 0x80
    """Where read-only data begins that is so after init, 64 bytes of it."""

    def __init__(self, build: bytes = BUILD_ID) -> None:
        self.narrow, self.inverse, self.wide = [self.WRITE + 3], [self.WRITE + 0x14], [self.WRITE + 9]
        self.wide += [self.CONSTANTS + 8]
        constants = b"shipped\0" + struct.pack("<Q", self.READ) + bytes(range(0x70)) + b"late" * 16 + b"\x11" * 0x40
        at = INIT
        returns = distance(at, self.RETURN)
        locks = distance(at + 0x10, self.LOCK)
        replacement = at + 0x40
        alternative = distance(at + 0x20, self.ALTERNATIVE) + distance(at + 0x24, replacement) + bytes([9, 0, 5, 3])
        self.pieces = [
            Piece(".text", TEXT, self._text(), elf.ALLOC | elf.EXEC),
            Piece(".notes", RODATA + 0x2000, build_id(build), elf.ALLOC),
            Piece(".rodata", self.CONSTANTS, constants, elf.ALLOC | elf.WRITE),
            Piece(".return_sites", at, returns, elf.ALLOC),
            Piece(".smp_locks", at + 0x10, locks, elf.ALLOC),
            Piece(".altinstructions", at + 0x20, alternative, elf.ALLOC),
            Piece(".altinstr_replacement", replacement, b"\x0f\x01\xcb", elf.ALLOC | elf.EXEC),
            Piece(".kallsyms", SYMBOLS, self._kallsyms(), elf.ALLOC),
        ]

    def _kallsyms(self) -> bytes:
        """The symbol table as it was built; where it runs it has more, so that it stands where init memory was."""
        rows = sorted((a - SYMBOLS + PLACE, letter + name) for name, (a, letter) in self.symbols().items())
        return bytes(encode(rows, "7.0", lead=0).data)

    def _text(self) -> bytes:
        text = bytearray(b"\xcc" * self.TEXT_SIZE)

        def put(address: int, data: bytes) -> None:
            text[address - TEXT : address - TEXT + len(data)] = data

        put(self.THUNK, PLAIN_RETURN)
        put(self.READ, b"\xf3\x0f\x1e\xfa" + jump(self.RETURN, self.THUNK))
        put(self.WRITE, b"\x48\xc7\xc0" + struct.pack("<I", self.CONSTANTS % (1 << 32)))
        put(self.WRITE + 7, b"\x48\xb8" + struct.pack("<Q", self.CONSTANTS))
        put(self.WRITE + 0x11, b"\x48\x8b\x05" + struct.pack("<I", (0x28 - self.WRITE - 0x18) % (1 << 32)))
        put(self.LOCK, b"\xf0\x48\xff\x00\xc3")
        put(self.LABEL, b"\x0f\x1f\x44\x00\x00\xc3")
        put(self.ALTERNATIVE, b"\x0f\x1f\x44\x00\x00\xc3")
        return bytes(text)

    def linked(self) -> list[Piece]:
        """The sections as the linker left them."""
        found = []
        for piece in self.pieces:
            data = bytearray(piece.data)
            for places, change, form in (
                (self.narrow, -OFFSET, "<I"),
                (self.inverse, OFFSET, "<I"),
                (self.wide, -OFFSET, "<Q"),
            ):
                for at in (place - piece.address for place in places):
                    if 0 <= at < len(data):
                        number = struct.unpack_from(form, data, at)[0] + change
                        struct.pack_into(form, data, at, number % (1 << 8 * struct.calcsize(form)))
            found.append(piece._replace(address=piece.address - OFFSET, data=bytes(data)))
        return found

    def lists(self, *, inverse: bool = True) -> bytes:
        """What moves, as it stands behind a kernel's file (arch/x86/tools/relocs.c)."""
        middle = [0, *(self.inverse)] if inverse else []
        words = [0, *self.wide, *middle, 0, *self.narrow]
        return b"".join(struct.pack("<I", (word - OFFSET) % (1 << 32) if word else 0) for word in words)

    def elf(self, *, symbols: bool = False, kept: bool = False) -> Elf:
        """The file without what follows it; the linker may have kept its relocations, which tell what moves too."""
        made = Elf(elf.EXECUTABLE)
        for piece in self.linked():
            kind = elf.NOTE if piece.name == ".notes" else elf.PROGBITS
            made.section(piece.name, piece.data, piece.flags, kind=kind, address=piece.address)
        for name, (address, _) in self.symbols().items() if symbols else ():
            made.symbol(name, 1 if address < RODATA else 3, address - OFFSET)
        if kept:
            per_cpu = made.section(".data..percpu", bytes(32), elf.ALLOC | elf.WRITE)
            variable, function = made.symbol("variable", per_cpu, 8), made.symbol("function", 1, TEXT - OFFSET)
            for places, kind, symbol in (
                (self.narrow, elf.ABS32S, function),
                (self.inverse, elf.PC32, variable),
                (self.wide, elf.ABS64, function),
            ):
                for place in places:
                    home = next(n for n, p in enumerate(self.pieces, 1) if p.address <= place < p.address + len(p.data))
                    made.relocate(home, place - OFFSET, kind, symbol)
        return made

    def file(self, *, inverse: bool = True, symbols: bool = False) -> bytes:
        """The file as it is unpacked from a vmlinuz."""
        return self.elf(symbols=symbols).data() + self.lists(inverse=inverse)

    def symbols(self) -> dict[str, tuple[int, str]]:
        """Names of what is in it, where it is in memory."""
        return {
            "__x86_return_thunk": (self.THUNK, "T"),
            "vfs_read": (self.READ, "T"),
            "vfs_write": (self.WRITE, "T"),
            "labelled": (self.LABEL, "t"),
            "replaced": (self.ALTERNATIVE, "t"),
            "constants": (self.CONSTANTS, "r"),
            "__start_ro_after_init": (self.LATE, "R"),
            "__end_ro_after_init": (self.LATE + 0x40, "R"),
        }


class ShippedModule:
    """A module's file: sections, and relocations against its own, the kernel's and other modules' symbols."""

    def __init__(
        self, name: str, build: bytes = MODULE_ID, *, calls: tuple[str, ...] = ("vfs_read",), depends: str = ""
    ) -> None:
        self.name = name
        made = self.elf = Elf()
        text = bytearray(
            b"\xf3\x0f\x1e\xfa" + b"\xe9\0\0\0\0".ljust(28, b"\xcc") + b"\xe8\0\0\0\0" * len(calls) + b"\xc3"
        )
        self.text = made.section(".text", bytes(text), elf.ALLOC | elf.EXEC)
        self.rodata = made.section(".rodata", b"\xaa" * 8 + bytes(24))
        self.data = made.section(".data", bytes(32), elf.ALLOC | elf.WRITE)
        returns = made.section(".return_sites", bytes(4))
        made.section(".note.gnu.build-id", build_id(build), kind=elf.NOTE)
        made.section(".modinfo", f"name={name}\0depends={depends}\0srcversion=ABCDEF\0".encode())
        made.section(".init.text", b"\xc3" * 16, elf.ALLOC | elf.EXEC)
        made.section(".bss", b"", elf.ALLOC | elf.WRITE, kind=elf.NOBITS, size=64)
        own = made.symbol(f"{name}_read", self.text)
        thunk = made.symbol("__x86_return_thunk", elf.UNDEFINED, kind=elf.NOTYPE)
        made.relocate(self.text, 5, elf.PLT32, thunk, -4)
        for index, called in enumerate(calls):
            made.relocate(self.text, 33 + 5 * index, elf.PLT32, made.symbol(called, elf.UNDEFINED, kind=elf.NOTYPE), -4)
        made.relocate(self.rodata, 8, elf.ABS64, own, 4)
        made.relocate(self.rodata, 16, elf.ABS32S, thunk, 0)
        made.relocate(self.rodata, 20, elf.PC32, own, 0)
        made.relocate(self.data, 0, elf.ABS64, made.symbol(f"{name}_ops", self.rodata, kind=elf.OBJECT), 0)
        made.relocate(returns, 0, elf.PC32, made.symbol("", self.text, kind=elf.SECTION, binding=elf.LOCAL), 4)

    def file(self) -> bytes:
        """The .ko."""
        return self.elf.data()

    def loaded(self, places: Mapping[str, int], resolve: Callable[[str], int]) -> dict[str, bytes]:
        """The sections after the loader has applied every relocation."""
        found = {}
        for number, row in enumerate(self.elf.rows):
            if row.name in places and row.kind != elf.NOBITS:
                data = bytearray(row.data)
                for offset, kind, symbol, addend in self.elf.relocations.get(number, ()):
                    name, home, value, _, _ = self.elf.symbols[symbol]
                    target = places[self.elf.rows[home].name] + value if home else resolve(name)
                    self._put(data, offset, kind, target + addend, places[row.name] + offset)
                found[row.name] = bytes(data)
        return found

    @staticmethod
    def _put(data: bytearray, offset: int, kind: int, value: int, place: int) -> None:
        if kind in {elf.PC32, elf.PLT32, elf.PC64}:
            value -= place
        size = 8 if kind in {elf.ABS64, elf.PC64} else 4
        data[offset : offset + size] = (value % _WORD).to_bytes(8, "little")[:size]


_LETTERS = {".text": "t", ".data": "d"}
_UNLISTED = (".modinfo", "")


def _load(image: KernelImage, module: ShippedModule, index: int, exports: dict[str, int]) -> Module:
    """Lay a module out and fill in what the kernel knows of it."""
    loaded = Module(image, module.name, index)
    places: dict[str, int] = {}
    for row in module.elf.rows:
        if row.flags & elf.ALLOC and row.size and row.name not in _UNLISTED:
            letter = _LETTERS.get(row.name, "d" if row.flags & elf.WRITE else "r")
            places[row.name] = loaded.put(letter, bytes(row.size), "")
    places[".init.text"] = INIT + 0x1000
    for section, data in module.loaded(places, exports.__getitem__).items():
        if section != ".init.text":
            image.poke(places[section], data)
    for name, home, value, _, size in module.elf.symbols:
        if name and home:
            row = module.elf.rows[home]
            loaded.symbols[name] = (places[row.name] + value, size, _LETTERS.get(row.name, "r"))
            exports[name] = places[row.name] + value
    _list_sections(image, loaded, places)
    image.at |= {f"{module.name} {section}": place for section, place in places.items()}
    return loaded


def _list_sections(image: KernelImage, loaded: Module, places: Mapping[str, int]) -> None:
    attributes = image.object("module_sect_attrs", nsections=len(places))
    for index, (section, place) in enumerate(places.items()):
        name = image.heap(section.encode() + b"\0")
        image.member("module_sect_attrs", attributes, f"attrs[{index}].battr.attr.name", name)
        image.member("module_sect_attrs", attributes, f"attrs[{index}].address", place)
    image.set("module", loaded.address, sect_attrs=attributes, srcversion=image.heap(b"ABCDEF\0"))
    image.at[f"sections of {loaded.name}"] = attributes


def running(kernel: ShippedKernel, *modules: ShippedModule) -> KernelImage:
    """Memory of a host on which they run, as built but for nothing; executable memory of others there is none."""
    image = bare_kernel()
    image.types = CTypes({**KERNEL, **_TYPES})
    for piece in kernel.pieces:
        if piece.address < INIT:
            image.poke_image(piece.address, piece.data)
    image._places["text"] = TEXT + kernel.TEXT_SIZE
    image._places["rodata"] = RODATA + 0x2100
    image.symbols |= kernel.symbols()
    notes = RODATA + 0x2000
    image.name("__start_notes", notes, "R")
    image.name("__stop_notes", notes + len(build_id(BUILD_ID)), "R")
    image.link(image.pointers("vmap_area_list", 0, 0))
    exports = {name: address for name, (address, _) in kernel.symbols().items()}
    loaded = [_load(image, module, index, exports) for index, module in enumerate(modules)]
    for module in loaded:
        module.finish()
    knit(image, loaded, {})
    image.finish()
    return image
