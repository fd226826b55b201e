"""ELF files of x86-64 as a kernel and its modules are built: sections, symbols and relocations in bulk.

Source: System V gABI, chapters 4 and 5 (file header, section headers, symbol tables, Elf64_Rela, note sections).
Sections in a file may not overlap there; since the files are anyone's, it is held against them: so what all sections
have together is never more than the file.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hypervigil.core.errors import DecodeError, UnsupportedEvidence

RELOCATABLE, EXECUTABLE = 1, 2
"""Types of file: a module's, a kernel's."""

WRITE, ALLOC, EXEC = 1, 2, 4
"""Flags of a section."""

SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
RELA = np.dtype([("offset", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_MACHINE = 62
_MAX_SECTIONS = 1 << 16
_MAX_NAME = 512
_MAX_SYMBOLS = 1 << 22
_NULL, _SYMTAB, _RELA, _NOBITS = 0, 2, 4, 8
_GNU_BUILD_ID = 3
_MAX_NOTES = 64

Rows = npt.NDArray[np.void]


class Section(NamedTuple):
    """One section.

    Attributes:
        number: its number.
        name: latin-1.
        kind: ``sh_type``.
        flags: `WRITE`, `ALLOC`, `EXEC` and others.
        address: where it is linked at; 0 in a module.
        offset: where its bytes begin in the file.
        size: its bytes in memory.
        link: number of the section that goes with it.
        info: for relocations, the section that they change.
    """

    number: int
    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int


class ElfFile:
    """A file of sections.

    Args:
        data: the whole file; what follows behind its end is kept.

    Attributes:
        kind: `RELOCATABLE`, `EXECUTABLE` or another type of the header.
        sections: in their order.

    Raises:
        UnsupportedEvidence: an ELF file of another machine.
        DecodeError: no ELF file, headers that do not fit it, or sections that share bytes.
    """

    def __init__(self, data: memoryview) -> None:
        if len(data) < _HEADER.size or bytes(data[:4]) != b"\x7fELF":
            raise DecodeError("elf file", "not an ELF file", 0)
        ident, self.kind, machine, *_, place, _, _, _, _, width, count, names = _HEADER.unpack_from(data)
        if bytes(ident[4:6]) != b"\x02\x01" or machine != _MACHINE:
            raise UnsupportedEvidence("an ELF file that is not of x86-64")
        if width != _SECTION.size or not 0 < count <= _MAX_SECTIONS or place + count * width > len(data):
            raise DecodeError("elf file", f"{count} section headers of {width} bytes do not fit", 40)
        self._data = data
        self.end: int = place + count * width
        raw = [_SECTION.unpack_from(data, place + index * width) for index in range(count)]
        if sum(row[5] for row in raw if row[1] not in {_NULL, _NOBITS}) > len(data):
            raise DecodeError("elf file", "its sections overlap, or lie outside of the file", place)
        strings = b""
        if names < count:
            strings = self._bytes("section names", raw[names][1], raw[names][4], raw[names][5])
        self.sections = tuple(
            Section(index, _string(strings, name), kind, flags, address, offset, size, link, info)
            for index, (name, kind, flags, address, offset, size, link, info, _, _) in enumerate(raw)
        )
        self._relocations: dict[int, list[Section]] = {}
        for section in self.sections:
            if section.kind == _RELA:
                self._relocations.setdefault(section.info, []).append(section)

    def find(self, name: str) -> Section | None:
        """The first section of that name."""
        return next((section for section in self.sections if section.name == name), None)

    def content(self, section: Section) -> bytes:
        """The bytes of a section; empty for one that has none in the file, whatever its size in memory.

        Raises:
            DecodeError: they lie outside of the file.
        """
        return self._bytes(section.name, section.kind, section.offset, section.size)

    def rest(self) -> memoryview:
        """What follows behind the section headers, which stand last in a kernel's file."""
        return self._data[self.end :]

    def symbols(self) -> "tuple[Rows, bytes]":
        """The symbol table as rows of `SYMBOL`, and its strings; empty where there is none.

        Raises:
            DecodeError: it lies outside of the file, or has more rows than any kernel.
        """
        section = next((s for s in self.sections if s.kind == _SYMTAB), None)
        if section is None or section.link >= len(self.sections):
            return np.zeros(0, SYMBOL), b""
        data = self.content(section)
        count = len(data) // SYMBOL.itemsize
        if count > _MAX_SYMBOLS:
            raise DecodeError("elf file", f"{count} symbols", section.offset)
        rows = np.frombuffer(data, SYMBOL, count)
        return rows, self.content(self.sections[section.link])

    def relocations(self, section: Section) -> Rows:
        """Every relocation that changes a section, as rows of `RELA`.

        Raises:
            DecodeError: they lie outside of the file.
        """
        parts = [np.zeros(0, RELA)]
        for other in self._relocations.get(section.number, ()):
            data = self.content(other)
            parts.append(np.frombuffer(data, RELA, len(data) // RELA.itemsize))
        return np.concatenate(parts)

    def build_id(self) -> str:
        """The build id of the linker as hexadecimal digits; empty if there is none."""
        for section in self.sections:
            if section.name.startswith(".note"):
                for name, kind, body in each_note(self.content(section)):
                    if name == b"GNU" and kind == _GNU_BUILD_ID:
                        return body.hex()
        return ""

    def _bytes(self, name: str, kind: int, offset: int, size: int) -> bytes:
        if kind == _NOBITS:
            return b""
        if offset + size > len(self._data):
            raise DecodeError("elf file", f"section {name!r} lies outside of the file", offset)
        return bytes(self._data[offset : offset + size])


def each_note(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """``(name without its NUL, type, body)`` of each note of a section; ends at what is none."""
    at = 0
    for _ in range(_MAX_NOTES):
        if at + 12 > len(data):
            return
        name_size, size, kind = struct.unpack_from("<III", data, at)
        body = at + 12 + -(-name_size // 4) * 4
        if body + size > len(data):
            return
        yield data[at + 12 : at + 12 + name_size].rstrip(b"\0"), kind, data[body : body + size]
        at = body + -(-size // 4) * 4


def text_at(strings: bytes, offset: int) -> str:
    """The string at an offset of a string table; empty where there is none."""
    return _string(strings, offset)


def _string(strings: bytes, offset: int) -> str:
    end = strings.find(b"\0", offset, offset + _MAX_NAME)
    return strings[offset:end].decode("latin-1") if end >= 0 else ""
