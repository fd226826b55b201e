"""Modules of a kernel under construction: pages, functions, tables, and the structures that know of them."""

import struct
from collections.abc import Sequence

from hypervigil.core.units import PAGE_SIZE
from tests.linux.c_types import CTypes, words
from tests.linux.kernel_builder import FUNCTION, KernelImage

FIRST = 0xFFFF_FFFF_C000_0000
_APART = 0x2_0000
_TEXT_PAGES, _RODATA_PAGES, _DATA_PAGES = 1, 4, 2
_LIVE = 0
_MEM_TEXT, _MEM_DATA, _MEM_RODATA = 0, 1, 2
_RB_NODE = 24


class Module:
    """One module: text, read-only data and data in pages of their own.

    Attributes:
        symbols: ``name: (address, size, letter)``.
        address: of its ``struct module``.
    """

    def __init__(self, kernel: KernelImage, name: str, index: int) -> None:
        self.kernel, self.name = kernel, name
        self.text = FIRST + index * _APART
        self.rodata = self.text + 0x8000
        self.data = self.text + 0x1_0000
        kernel.page(self.text, b"\xcc" * _TEXT_PAGES * PAGE_SIZE, writable=False, executable=True)
        kernel.page(self.rodata, b"\xa5" * _RODATA_PAGES * PAGE_SIZE, writable=False)
        kernel.page(self.data, b"\xa5" * _DATA_PAGES * PAGE_SIZE)
        self.symbols: dict[str, tuple[int, int, str]] = {}
        self._places = {"t": self.text, "r": self.rodata, "d": self.data}
        size = kernel.types.size("module")
        self.address = self.put("d", bytes(size), "__this_module")
        kernel.at[f"module {name}"] = self.address

    def put(self, letter: str, content: bytes, symbol: str) -> int:
        """Place content in text (t), read-only data (r) or data (d); return its address."""
        at = self._places[letter]
        self._places[letter] = at + len(content) + -len(content) % 16
        self.kernel.poke(at, content)
        if symbol:
            self.symbols[symbol] = (at, len(content), letter)
            self.kernel.at[symbol] = at
        return at

    def function(self, symbol: str) -> int:
        """A function that returns at once; the same one if it is there already."""
        if symbol not in self.symbols:
            self.put("t", b"\xf3\x0f\x1e\xfa\xc3".ljust(FUNCTION, b"\xcc"), symbol)
        return self.symbols[symbol][0]

    def table(self, symbol: str, kind: str, types: CTypes, letter: str = "r", /, **functions: int) -> int:
        """A structure of functions."""
        at = self.put(letter, bytes(types.size(kind)), symbol)
        self.kernel.set(kind, at, types, **functions)
        return at

    def finish(self) -> None:
        """Write ``struct module`` and its table of symbols."""
        kernel = self.kernel
        kernel.set("module", self.address, state=_LIVE, name=self.name.encode(), kallsyms=self._kallsyms())
        for index, base, pages in (
            (_MEM_TEXT, self.text, _TEXT_PAGES),
            (_MEM_DATA, self.data, _DATA_PAGES),
            (_MEM_RODATA, self.rodata, _RODATA_PAGES),
        ):
            kernel.member("module", self.address, f"mem[{index}].base", base)
            kernel.member("module", self.address, f"mem[{index}].size", pages * PAGE_SIZE)

    def _kallsyms(self) -> int:
        strings, rows, letters = b"\0", bytes(24), b"?"
        for name, (address, size, letter) in self.symbols.items():
            rows += struct.pack("<IBBHQQ", len(strings), 2, 0, 1, address, size)
            strings += name.encode() + b"\0"
            letters += letter.encode()
        count = 1 + len(self.symbols)
        tables = {
            "symtab": self.kernel.heap(rows),
            "strtab": self.kernel.heap(strings),
            "typetab": self.kernel.heap(letters),
        }
        for what, address in tables.items():
            self.kernel.at[f"{what} of {self.name}"] = address
        return self.kernel.object("mod_kallsyms", num_symtab=count, **tables)


def knit(kernel: KernelImage, modules: Sequence[Module], types: dict[str, bytes]) -> None:
    """Make every structure that knows of modules: lists, trees, sysfs, type information by module."""
    addresses = [module.address for module in modules]
    offset = kernel.types.offset
    kernel.link(kernel.pointers("modules", 0, 0), *(a + offset("module", "list") for a in addresses))
    kernel.link(kernel.pointers("module_bug_list", 0, 0), *(a + offset("module", "bug_list") for a in addresses))
    kset = kernel.object("kset")
    kernel.pointers("module_kset", kset)
    objects = {module.name: kernel.object("module_kobject", mod=module.address) for module in modules}
    builtin = kernel.object("module_kobject", mod=0)
    kernel.at |= {f"sysfs {name}": address for name, address in objects.items()}
    kernel.link(kset, *(o + offset("module_kobject", "kobj.entry") for o in (*objects.values(), builtin)))
    entries = []
    for module in modules:
        if module.name in types:
            data = kernel.heap(types[module.name])
            btf = kernel.object("btf", data=data, data_size=len(types[module.name]), name=module.name.encode())
            entries.append(kernel.object("btf_module", module=module.address, btf=btf))
            kernel.at |= {f"btf of {module.name}": btf, f"btf entry {module.name}": entries[-1]}
    kernel.link(kernel.pointers("btf_modules", 0, 0), *(e + offset("btf_module", "list") for e in entries))
    _grow(kernel, addresses)


def _grow(kernel: KernelImage, modules: list[int]) -> None:
    """``mod_tree``, both of its halves, each a branch that goes to the right only."""
    tree = kernel.variable("mod_tree", "mod_tree_root")
    offset = kernel.types.offset
    for half in range(2):
        nodes = [m + offset("module", f"mem[{_MEM_TEXT}].mtn.node") + half * _RB_NODE for m in modules]
        kernel.member("mod_tree_root", tree, f"root.tree[{half}].rb_node", nodes[0] if nodes else 0)
        for index, node in enumerate(nodes):
            parent = nodes[index - 1] | 1 if index else 1
            kernel.poke(node, words(parent, nodes[index + 1] if index + 1 < len(nodes) else 0, 0))
    for module in modules:
        kernel.member("module", module, f"mem[{_MEM_TEXT}].mtn.mod", module)
