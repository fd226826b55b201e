"""Writes ELF files of x86-64 with sections, symbols and relocations, also such as no linker would write."""

import struct
from typing import NamedTuple

RELOCATABLE, EXECUTABLE = 1, 2
WRITE, ALLOC, EXEC = 1, 2, 4
PROGBITS, SYMTAB, STRTAB, RELA, NOTE, NOBITS = 1, 2, 3, 4, 7, 8
ABS64, PC32, PLT32, ABS32, ABS32S, PC64 = 1, 2, 4, 10, 11, 24
LOCAL, GLOBAL, WEAK = 0, 1, 2
NOTYPE, OBJECT, FUNCTION, SECTION = 0, 1, 2, 3
UNDEFINED, ABSOLUTE = 0, 0xFFF1
HEADER, SECTION_HEADER, SYMBOL, RELOCATION = 64, 64, 24, 24
"""Bytes of each."""


class Row(NamedTuple):
    """A section header and what it speaks of; `size` overrules the size of the data."""

    name: str
    kind: int
    flags: int
    address: int
    data: bytes
    size: int
    link: int = 0
    info: int = 0


class Elf:
    """A file under construction; section 0 and symbol 0 are there from the start."""

    def __init__(self, kind: int = RELOCATABLE, *, machine: int = 62, ident: bytes = b"\x7fELF\x02\x01\x01") -> None:
        self.kind, self.machine, self.ident = kind, machine, ident
        self.rows: list[Row] = [Row("", 0, 0, 0, b"", 0)]
        self.symbols: list[tuple[str, int, int, int, int]] = [("", 0, 0, 0, 0)]
        self.relocations: dict[int, list[tuple[int, int, int, int]]] = {}

    def section(
        self,
        name: str,
        data: bytes = b"",
        flags: int = ALLOC,
        *,
        kind: int = PROGBITS,
        address: int = 0,
        size: int | None = None,
    ) -> int:
        """Add a section; return its number."""
        self.rows.append(Row(name, kind, flags, address, data, len(data) if size is None else size))
        return len(self.rows) - 1

    def symbol(self, name: str, home: int, value: int = 0, *, kind: int = FUNCTION, binding: int = GLOBAL) -> int:
        """Add a symbol; return its number."""
        self.symbols.append((name, home, value, binding << 4 | kind, 16))
        return len(self.symbols) - 1

    def relocate(self, section: int, offset: int, kind: int, symbol: int, addend: int = 0) -> None:
        """Add a relocation to a section."""
        self.relocations.setdefault(section, []).append((offset, kind, symbol, addend))

    def data(self) -> bytes:
        """The file: header, contents, section headers last."""
        rows = list(self.rows)
        if len(self.symbols) > 1:
            rows += self._tables(len(rows))
        names, places = b"\0", []
        rows.append(Row(".shstrtab", STRTAB, 0, 0, b"", 0))
        for row in rows:
            places.append(len(names))
            names += row.name.encode("latin-1") + b"\0"
        rows[-1] = rows[-1]._replace(data=names, size=len(names))
        body, headers = b"", b""
        for row, name in zip(rows, places, strict=True):
            body += b"\xee" * (-len(body) % 16)
            at = HEADER + len(body)
            body += row.data
            headers += struct.pack(
                "<IIQQQQIIQQ", name, row.kind, row.flags, row.address, at, row.size, row.link, row.info, 1, 0
            )
        return self._header(HEADER + len(body), len(rows)) + body + headers

    def _tables(self, first: int) -> list[Row]:
        """Symbols, their names, and the relocations; the table of symbols gets the number `first`."""
        strings, table = b"\0", b""
        for name, home, value, info, size in self.symbols:
            table += struct.pack("<IBBHQQ", len(strings) if name else 0, info, 0, home, value, size)
            strings += name.encode() + b"\0" if name else b""
        rows = [
            Row(".symtab", SYMTAB, 0, 0, table, len(table), link=first + 1),
            Row(".strtab", STRTAB, 0, 0, strings, len(strings)),
        ]
        for section, entries in self.relocations.items():
            data = b"".join(struct.pack("<QIIq", *entry) for entry in entries)
            name = f".rela{self.rows[section].name}"
            rows.append(Row(name, RELA, 0, 0, data, len(data), link=first, info=section))
        return rows

    def _header(self, place: int, count: int) -> bytes:
        rest = (self.kind, self.machine, 1, 0, 0, place, 0, HEADER, 0, 0, SECTION_HEADER, count, count - 1)
        return struct.pack("<16sHHIQQQIHHHHHH", self.ident, *rest)


def note(name: bytes, kind: int, body: bytes) -> bytes:
    """One ELF note."""
    padded = name + b"\0"
    return (
        struct.pack("<III", len(padded), len(body), kind)
        + padded.ljust(-(-len(padded) // 4) * 4, b"\0")
        + body.ljust(-(-len(body) // 4) * 4, b"\0")
    )


def build_id(value: bytes) -> bytes:
    """The note in which a linker writes the build id."""
    return note(b"GNU", 3, value)
