"""A kernel in memory: text, data and read-only data with symbols, types and VMCOREINFO, ready to be opened.

The image of the kernel stands in one piece of physical memory, text first, then data, then read-only data with the
tables of symbols and types at its end. All of memory is in the direct map; objects on the heap are addressed there.
"""

import struct
from typing import Self

import numpy as np

from hypervigil.core.units import PAGE_SIZE
from hypervigil.memory.kernel import Kernel, open_kernel
from hypervigil.memory.open import read_image
from hypervigil.memory.reader import Reader
from hypervigil.memory.symbols import Losses, Symbols
from tests.decode.elf_encoder import elf, note, qemu_state
from tests.decode.kallsyms_encoder import encode
from tests.linux.c_types import CTypes, words
from tests.linux.linux_types import KERNEL as KERNEL_TYPES
from tests.memory.page_tables import Image

MAP = 0xFFFF_FFFF_8000_0000
TEXT = 0xFFFF_FFFF_8100_0000
HEAP = 0xFFFF_8880_0000_0000
VMALLOC = 0xFFFF_C900_0000_0000
"""Where the kernel's map, its text, the direct map and vmalloc space begin."""

PHYSICAL = 0x20_0000
"""Where the kernel's image is loaded."""

SIZE = 0x40_0000
"""Bytes of memory."""

TEXT_SIZE, DATA_SIZE, RODATA_SIZE = 0x4000, 0x8000, 0x2_4000
DATA, RODATA = TEXT + TEXT_SIZE, TEXT + TEXT_SIZE + DATA_SIZE
TABLES = RODATA + 0x4000
"""Where the tables of symbols and types begin."""

RELEASE = "6.12.0-0-test"
BANNER = f"Linux version {RELEASE} (builder@example) #1 SMP\n"
BUILD_ID = bytes(range(20))
FUNCTION = 16
"""Bytes of every function."""

_FIRST_FRAME = 0x1_0000


def lose_symbols(kernel: Kernel, losses: Losses) -> None:
    """Takes symbols away from an opened kernel: those that are lost by `losses`, which its table then tells."""
    symbols = kernel.symbols
    kept = [at for at, name in enumerate(symbols.names) if name not in losses.placeless]
    left = Symbols(
        np.array([symbols.addresses[at] for at in kept], np.uint64),
        [symbols.names[at] for at in kept],
        "".join(symbols.types[at] for at in kept),
        symbols.source,
        losses=losses,
    )
    kernel.use_symbols(left, kernel.table)


class KernelImage(Image):
    """A kernel under construction, and afterwards.

    Attributes:
        symbols: ``name: (address, type letter)``; of one name several may be given by `alias`.
        types: structures of the kernel.
        at: addresses of what was built, by a name for tests.
    """

    def __init__(self, size: int = SIZE, levels: int = 4, root: int = 0) -> None:
        super().__init__(size, levels, root or PHYSICAL + TEXT_SIZE)
        self._next = _FIRST_FRAME
        self.symbols: dict[str, tuple[int, str]] = {}
        self.types = CTypes(KERNEL_TYPES)
        self.at: dict[str, int] = {}
        self._places = {"text": TEXT, "data": DATA + PAGE_SIZE, "rodata": RODATA}
        self._heap_at = self._heap_end = 0

    def copy(self) -> Self:
        """Another one with the same content."""
        other = super().copy()
        other.symbols, other.at, other.types = dict(self.symbols), dict(self.at), self.types
        other._places = dict(self._places)
        other._heap_at, other._heap_end = self._heap_at, self._heap_end
        return other

    def map_kernel(self) -> None:
        """Make the page tables: the kernel's image with the rights it should have, and the direct map."""
        for start, size, executable, writable in (
            (TEXT, TEXT_SIZE, True, False),
            (DATA, DATA_SIZE, False, True),
            (RODATA, RODATA_SIZE, False, False),
        ):
            for at in range(start, start + size, PAGE_SIZE):
                self.map(at, at - TEXT + PHYSICAL, executable=executable, writable=writable)
        for at in range(0, len(self.data), 1 << 21):
            self.map(HEAP + at, at, size=1 << 21)

    def name(self, symbol: str, address: int, letter: str = "d") -> int:
        """Give an address a symbol."""
        self.symbols[symbol] = (address, letter)
        return address

    def put_in(self, section: str, content: bytes, symbol: str = "", alignment: int = 16) -> int:
        """Place content in ``text``, ``data`` or ``rodata``; return its address."""
        at = self._places[section]
        at += -at % alignment
        self._places[section] = at + len(content)
        self.poke(at, content)
        if symbol:
            self.name(symbol, at, {"text": "t", "data": "d", "rodata": "r"}[section])
        return at

    def function(self, symbol: str) -> int:
        """A function of the kernel that returns at once."""
        return self.put_in("text", b"\xf3\x0f\x1e\xfa\xc3".ljust(FUNCTION, b"\xcc"), symbol)

    def pointers(self, symbol: str, *values: int) -> int:
        """A table of pointers in data."""
        return self.put_in("data", words(*values), symbol)

    def variable(self, symbol: str, kind: str, **members: int | bytes) -> int:
        """A structure in data."""
        at = self.put_in("data", bytes(self.types.size(kind)), symbol)
        self.set(kind, at, **members)
        return at

    def heap(self, content: bytes | int) -> int:
        """Place content on the heap; return its address in the direct map."""
        data = content if isinstance(content, bytes) else bytes(content)
        if self._heap_end - self._heap_at < len(data):
            pages = max(4, -(-len(data) // PAGE_SIZE))
            frame = self.frame(pages)
            assert frame + pages * PAGE_SIZE <= PHYSICAL, "the heap is full"
            self._heap_at, self._heap_end = frame, frame + pages * PAGE_SIZE
            self.data[frame : self._heap_end] = b"\x6b" * (pages * PAGE_SIZE)  # as the kernel poisons what is free
        at = self._heap_at
        self._heap_at += len(data) + -len(data) % 16
        self.data[at : at + len(data)] = data
        return HEAP + at

    def object(self, kind: str, types: CTypes | None = None, /, **members: int | bytes) -> int:
        """A structure on the heap; a member's path may be given with ``__`` for its dots."""
        at = self.heap((types or self.types).size(kind))
        self.set(kind, at, types, **members)
        return at

    def set(self, kind: str, address: int, types: CTypes | None = None, /, **members: int | bytes) -> None:
        """Set members of a structure."""
        for path, value in members.items():
            self.member(kind, address, path.replace("__", "."), value, types)

    def member(self, kind: str, address: int, path: str, value: int | bytes, types: CTypes | None = None) -> None:
        """Set one member by its path."""
        offset, data = (types or self.types).encode(kind, path, value)
        self.poke(address + offset, data)

    def word(self, address: int) -> int:
        """The 64-bit number at a virtual address."""
        return int.from_bytes(self.peek(address, 8), "little")

    def link(self, head: int, *nodes: int) -> None:
        """Make a ``struct list_head`` list of nodes."""
        ring = (head, *nodes)
        for index, node in enumerate(ring):
            self.poke(node, words(ring[(index + 1) % len(ring)], ring[index - 1]))

    def unlink(self, node: int) -> None:
        """Take a node off its list, as ``list_del_init`` does."""
        following, before = self.word(node), self.word(node + 8)
        self.poke(before, words(following))
        self.poke(following + 8, words(before))
        self.poke(node, words(node, node))

    def finish(self) -> None:
        """Write the tables of symbols and types, and VMCOREINFO, after everything has its symbol."""
        self.name("_etext", self._places["text"], "T")
        btf = self.put_tables()
        self.put_vmcoreinfo()
        assert btf <= RODATA + RODATA_SIZE, "the tables do not fit"
        for section, end in (("text", DATA), ("data", RODATA), ("rodata", TABLES)):
            assert self._places[section] <= end, f"{section} is full"

    def put_tables(self, layout: str = "6.4-percpu") -> int:
        """Write kallsyms and BTF into the read-only data; return the end of both."""
        btf = TABLES
        self.poke_image(btf, self.types.btf)
        self.name("__start_BTF", btf, "D")
        self.name("__stop_BTF", btf + len(self.types.btf), "D")
        at = btf + len(self.types.btf)
        at += -at % 64
        rows = sorted((address, letter + name) for name, (address, letter) in self.symbols.items())
        section = encode(rows, layout, lead=128)
        self.poke_image(at, bytes(section.data))
        self.at |= {name: at + start for name, (start, _) in section.places.items()}
        return at + len(section.data)

    def poke_image(self, address: int, content: bytes) -> None:
        """Write to the kernel's image, which is in one piece."""
        place = address - TEXT + PHYSICAL
        self.data[place : place + len(content)] = content

    def put_vmcoreinfo(self) -> None:
        """Write VMCOREINFO at the start of a page of its own."""
        base = (PHYSICAL - (TEXT - MAP)) % (1 << 64)
        names = ("init_uts_ns", "swapper_pg_dir", "_stext")
        lines = [
            f"OSRELEASE={RELEASE}",
            f"BUILD-ID={BUILD_ID.hex()}",
            "PAGESIZE=4096",
            *(f"SYMBOL({name})={self.symbols[name][0]:x}" for name in names if name in self.symbols),
            f"SIZE(list_head)={self.types.size('list_head')}",
            f"OFFSET(list_head.next)={self.types.offset('list_head', 'next')}",
            f"NUMBER(phys_base)={base - (1 << 64) if base >> 63 else base}",
            f"NUMBER(pgtable_l5_enabled)={int(self.levels == 5)}",
            "KERNELOFFSET=0",
        ]
        frame = self.frame()
        text = "".join(f"{line}\n" for line in lines).encode()
        self.data[frame : frame + len(text)] = text
        self.at["vmcoreinfo"] = frame

    def core(self, *, cr3: int | None = None, gs: int = 0xFFFF_8000_0000_1000) -> Reader:
        """As an ELF core with the registers of one processor."""
        notes = note(b"QEMU", 0, qemu_state(cr3=self.root if cr3 is None else cr3, gs=gs))
        return read_image(memoryview(elf([(0, bytes(self.data))], notes)))

    def cores(self, *processors: tuple[int, int]) -> Reader:
        """As an ELF core with the registers of processors, each ``(cr3, base of the interrupt table)``."""
        states = [note(b"QEMU", 0, qemu_state(cr3=cr3, idt=idt)) for cr3, idt in processors]
        return read_image(memoryview(elf([(0, bytes(self.data))], b"".join(states))))

    def open(self, memory: Reader | None = None) -> Kernel:
        """The kernel, opened as it is in an image."""
        return open_kernel(memory or self.raw())


def bare_kernel(levels: int = 4) -> KernelImage:
    """A kernel with its own tables and nothing that runs: what is needed to open it."""
    image = KernelImage(levels=levels)
    image.map_kernel()
    image.name("_text", TEXT, "T")
    image.name("_stext", TEXT, "T")
    image.poke_image(TEXT, b"\xcc" * TEXT_SIZE)
    image.name("_sdata", DATA, "D")
    image.name("_edata", DATA + DATA_SIZE, "D")
    image.name("__start_rodata", RODATA, "R")
    image.name("__end_rodata", RODATA + RODATA_SIZE, "R")
    image.name("init_top_pgt", DATA, "D")
    image.name("swapper_pg_dir", DATA, "D")
    image.put_in("rodata", BANNER.encode() + b"\0", "linux_banner")
    image.pointers("phys_base", (PHYSICAL - (TEXT - MAP)) % (1 << 64))
    image.variable("init_uts_ns", "uts_namespace", name__sysname=b"Linux", name__release=RELEASE.encode())
    notes = struct.pack("<III", 4, len(BUILD_ID), 3) + b"GNU\0" + BUILD_ID
    start = image.put_in("rodata", notes, "__start_notes", 4)
    image.name("__stop_notes", start + len(notes), "r")
    return image
