"""Make a symbol file for Volatility 3 from a kernel's debug symbols. Only the benchmark needs it.

Volatility reads a kernel only with a symbol file of exactly its build, in its own JSON form (schema 6.2.0). drgn reads
the DWARF; the names of the types come from the BTF of the same file, the symbols from its ELF table.
"""

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path

import drgn
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from hypervigil.decode.btf import Btf
from hypervigil.decode.btf_types import BtfKind

_ANONYMOUS = "unnamed_"
_DWARF_NAMES = {
    "short": "short int",
    "unsigned short": "short unsigned int",
    "long": "long int",
    "unsigned long": "long unsigned int",
    "long long": "long long int",
    "unsigned long long": "long long unsigned int",
}
"""Volatility asks for the names that gcc writes; drgn has C's."""


class Types:
    """Types in Volatility's form, collected as they are referred to."""

    def __init__(self, program: drgn.Program) -> None:
        self.program = program
        self.base: dict[str, dict[str, object]] = {"pointer": _integer(8, signed=False), "void": _void()}
        self.user: dict[str, dict[str, object]] = {}
        self.enums: dict[str, dict[str, object]] = {}
        self._anonymous: dict[int, str] = {}
        self._waiting: list[tuple[str, drgn.Type]] = []

    def refer(self, kind: drgn.Type) -> dict[str, object]:  # noqa: C901, PLR0911 - one branch a kind of type
        """Volatility's reference to a type; what it refers to is described by `finish`."""
        match kind.kind:
            case drgn.TypeKind.TYPEDEF:
                return self.refer(kind.type)
            case drgn.TypeKind.POINTER:
                return {"kind": "pointer", "subtype": self.refer(kind.type)}
            case drgn.TypeKind.ARRAY:
                return {"kind": "array", "count": kind.length or 0, "subtype": self.refer(kind.type)}
            case drgn.TypeKind.STRUCT | drgn.TypeKind.UNION | drgn.TypeKind.CLASS:
                name = self._name(kind)
                if name not in self.user:
                    self.user[name] = {}
                    self._waiting.append((name, kind))
                return {"kind": "union" if kind.kind is drgn.TypeKind.UNION else "struct", "name": name}
            case drgn.TypeKind.ENUM:
                return self._enum(kind)
            case drgn.TypeKind.INT:
                return {"kind": "base", "name": self._integer(kind)}
            case drgn.TypeKind.BOOL:
                self.base.setdefault(
                    kind.name, {"size": kind.size, "signed": False, "kind": "bool", "endian": "little"}
                )
                return {"kind": "base", "name": kind.name}
            case drgn.TypeKind.FUNCTION:
                return {"kind": "function"}
            case _:
                return {"kind": "base", "name": "void"}

    def finish(self) -> None:
        """Describe every structure that was referred to."""
        while self._waiting:
            name, kind = self._waiting.pop()
            fields: dict[str, object] = {}
            for index, member in enumerate(kind.members or ()):
                field = {"type": self._field(member), "offset": member.bit_offset // 8}
                if member.name is None:
                    field["anonymous"] = True
                fields[member.name or f"{_ANONYMOUS}{index}"] = field
            shape = "union" if kind.kind is drgn.TypeKind.UNION else "struct"
            self.user[name] = {"size": kind.size or 0, "kind": shape, "fields": fields}

    def _integer(self, kind: drgn.Type) -> str:
        name = str(_DWARF_NAMES.get(kind.name, kind.name))
        self.base.setdefault(name, _integer(kind.size or 0, signed=kind.is_signed))
        return name

    def _field(self, member: drgn.TypeMember) -> dict[str, object]:
        reference = self.refer(member.type)
        if member.bit_field_size:
            return {
                "kind": "bitfield",
                "bit_position": member.bit_offset % 8,
                "bit_length": member.bit_field_size,
                "type": reference,
            }
        return reference

    def _name(self, kind: drgn.Type) -> str:
        return str(kind.tag) if kind.tag else f"{_ANONYMOUS}{hash(str(kind)) & 0xFFFFFFFFFFFF:x}"

    def _enum(self, kind: drgn.Type) -> dict[str, object]:
        name = self._name(kind)
        if kind.is_complete() and kind.type is not None:
            base = self._integer(kind.type)
            values = {e.name: e.value for e in kind.enumerators or ()}
            self.enums.setdefault(name, {"size": kind.type.size, "base": base, "constants": values})
            return {"kind": "enum", "name": name}
        return {"kind": "base", "name": "void"}


def _integer(size: int, *, signed: bool) -> dict[str, object]:
    return {"size": size, "signed": signed, "kind": "int", "endian": "little"}


def _void() -> dict[str, object]:
    return {"size": 0, "signed": False, "kind": "void", "endian": "little"}


def make(vmlinux: Path, banner: bytes) -> dict[str, object]:
    """The symbol file of a vmlinux with debug symbols.

    Args:
        vmlinux: the file.
        banner: the kernel's banner, by which Volatility chooses symbol files.
    """
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    program.extra_module("vmlinux", create=True).try_file(vmlinux, force=True)
    types = Types(program)
    with vmlinux.open("rb") as file:
        elf = ELFFile(file)
        for name in _structures(elf):
            try:
                types.refer(program.type(name))
            except LookupError:
                continue
        symbols = dict(_symbols(elf, program, types))
    types.finish()
    symbols["linux_banner"]["constant_data"] = base64.b64encode(banner).decode()
    return {
        "metadata": {
            "format": "6.2.0",
            # some plugins refuse every other producer; the form is that of dwarf2json 0.8
            "producer": {"name": "dwarf2json", "version": "0.8.0"},
            "linux": {"symbols": [], "types": []},
        },
        "base_types": types.base,
        "user_types": types.user,
        "enums": types.enums,
        "symbols": symbols,
    }


def _structures(elf: ELFFile) -> Iterator[str]:
    section = elf.get_section_by_name(".BTF")
    btf = Btf(b"" if section is None else section.data())
    for kind, word in ((BtfKind.STRUCT, "struct"), (BtfKind.UNION, "union"), (BtfKind.ENUM, "enum")):
        names = {btf.type(type_id).name for type_id in btf.each_id(kind)}
        yield from (f"{word} {name}" for name in sorted(names) if name)


def _symbols(elf: ELFFile, program: drgn.Program, types: Types) -> Iterator[tuple[str, dict[str, object]]]:
    table = elf.get_section_by_name(".symtab")
    for symbol in table.iter_symbols() if isinstance(table, SymbolTableSection) else ():
        if not symbol.name or symbol["st_shndx"] == "SHN_UNDEF":
            continue
        entry: dict[str, object] = {"address": symbol["st_value"], "type": {"kind": "base", "name": "void"}}
        if symbol["st_info"]["type"] == "STT_OBJECT":
            with contextlib.suppress(LookupError, drgn.BadDataError):
                entry["type"] = types.refer(program.variable(symbol.name).type_)
        yield symbol.name, entry
