"""The packaged file of a module, and where its parts lie in a running host."""

import io
from collections.abc import Iterator

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, SymbolTableSection

from hypervigil.core.errors import UsageError
from hypervigil.core.units import VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.kernels import each_module, module_data, module_name
from hypervigil.lab.machine import Machine


class PackagedModule:
    """A module's ELF file beside the host in which it is loaded."""

    def __init__(self, machine: Machine, name: str) -> None:
        for path in each_module(machine.kernel, (name,)):
            if module_name(path) == name.replace("-", "_"):
                self._elf = ELFFile(io.BytesIO(module_data(path)))
        self._machine = machine
        self._name = name.replace("-", "_")
        self._bases: dict[str, VirtAddr] = {}

    def base(self, section: str) -> VirtAddr:
        """Where a section was loaded, from /sys/module inside the host."""
        if section not in self._bases:
            result = self._machine.sh(f"cat /sys/module/{self._name}/sections/{section}")
            if result.status:
                raise UsageError(f"the host does not say where {section} of {self._name} lies")
            self._bases[section] = VirtAddr(int(result.text, 16))
        return self._bases[section]

    def section(self, name: str) -> Section:
        """A section of the file.

        Raises:
            NotApplicable: the module has none of that name.
        """
        section = self._elf.get_section_by_name(name)
        if section is None:
            raise NotApplicable(f"{self._name} has no {name}")
        return section

    def each_place(self, table: str) -> Iterator[tuple[int, VirtAddr]]:
        """The loaded addresses that a table of place-relative offsets names: (offset in the table, address).

        Only places in .text are given. Source: the x86-64 psABI, R_X86_64_PC32 and R_X86_64_PC64 are S + A - P,
        so that "label - ." has the label's offset as addend.
        """
        relocations = self.section(f".rela{table}")
        symbols = self._elf.get_section_by_name(".symtab")
        if not isinstance(relocations, RelocationSection) or not isinstance(symbols, SymbolTableSection):
            raise NotApplicable(f"{self._name} has no relocations for {table}")
        for entry in relocations.iter_relocations():
            symbol = symbols.get_symbol(entry["r_info_sym"])
            index = symbol["st_shndx"]
            if isinstance(index, int) and self._elf.get_section(index).name == ".text":
                yield entry["r_offset"], VirtAddr(self.base(".text") + symbol["st_value"] + entry["r_addend"])

    def count(self, table: str) -> int:
        """How many relocations a table has, whatever they name."""
        relocations = self.section(f".rela{table}")
        return relocations.num_relocations() if isinstance(relocations, RelocationSection) else 0

    def function(self, name: str) -> tuple[VirtAddr, bytes]:
        """The loaded address of a function in .text and its bytes as packaged.

        Raises:
            NotApplicable: the module has no such function.
        """
        symbols = self._elf.get_section_by_name(".symtab")
        if isinstance(symbols, SymbolTableSection):
            for symbol in symbols.get_symbol_by_name(name) or []:
                index = symbol["st_shndx"]
                if isinstance(index, int) and self._elf.get_section(index).name == ".text":
                    start, size = symbol["st_value"], symbol["st_size"]
                    return VirtAddr(self.base(".text") + start), self.section(".text").data()[start : start + size]
        raise NotApplicable(f"{self._name} has no function {name}")
