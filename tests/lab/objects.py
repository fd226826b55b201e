"""Builds small relocatable ELF files, as modules are."""

import struct

import msgspec

_SECTION = struct.Struct("<IIQQQQIIQQ")
_PROGBITS, _SYMTAB, _STRTAB, _RELA = 1, 2, 3, 4
_PC32 = 2
_TEXT = 1


class Function(msgspec.Struct, frozen=True):
    """A function in .text."""

    name: str
    start: int
    size: int


def module(
    text: bytes,
    functions: tuple[Function, ...] = (),
    tables: dict[str, tuple[bytes, tuple[tuple[int, int], ...]]] | None = None,
) -> bytes:
    """A module with .text, functions, and tables: by section name, content and (offset, place in .text) relocations."""
    names = "".join(f"\0{function.name}" for function in functions).encode() + b"\0"
    symbols = bytes(24) + struct.pack("<IBBHQQ", 0, 3, 0, _TEXT, 0, 0)
    for function in functions:
        at = names.index(f"\0{function.name}\0".encode()) + 1
        symbols += struct.pack("<IBBHQQ", at, 2, 0, _TEXT, function.start, function.size)
    sections = [(".text", _PROGBITS, text, 0, 0, 0)]
    sections.append((".symtab", _SYMTAB, symbols, 3, 2, 24))
    sections.append((".strtab", _STRTAB, names, 0, 0, 0))
    for name, (content, places) in (tables or {}).items():
        relocations = b"".join(struct.pack("<QQq", offset, 1 << 32 | _PC32, place) for offset, place in places)
        sections.append((name, _PROGBITS, content, 0, 0, 0))
        sections.append((f".rela{name}", _RELA, relocations, 2, len(sections), 24))
    return _file(sections)


def _file(sections: list[tuple[str, int, bytes, int, int, int]]) -> bytes:
    names = b"".join(b"\0" + section[0].encode() for section in sections) + b"\0.shstrtab\0"
    body, headers = b"", bytes(64)
    for name, kind, content, link, info, size in [*sections, (".shstrtab", _STRTAB, names, 0, 0, 0)]:
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        headers += _SECTION.pack(at, kind, 0, 0, 64 + len(body), len(content), link, info, 8, size)
        body += content + bytes(-len(content) % 8)
    head = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, len(sections) + 2, len(sections) + 1
    )
    return head + body + headers
