"""tar archives as a stream, in bounded memory: only what the caller wants is kept.

Sources: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format"
(types L and K, numbers in base 256).
"""

from typing import TYPE_CHECKING

import msgspec

from hypervigil.core.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_MEMBERS = 1 << 20
"""Members of one archive that are walked."""

MAX_NAME = 1 << 16
"""Bytes of an extended header or long name."""

_BLOCK = 512
_BASE256 = 0x80


class TarMember(msgspec.Struct, frozen=True):
    """A regular file of an archive: its name without a leading `./`, and its bytes."""

    name: str
    content: bytes


class _Header(msgspec.Struct, frozen=True):
    name: str
    size: int
    kind: bytes


class _Stream:
    """Reads exact amounts from chunks; skipping keeps nothing."""

    def __init__(self, chunks: "Iterable[bytes]") -> None:
        self._chunks = iter(chunks)
        self._pending = memoryview(b"")
        self.offset = 0

    def each_piece(self, size: int) -> "Iterator[memoryview]":
        """The next `size` bytes, in pieces as they come.

        Raises:
            DecodeError: the stream ends before.
        """
        left = size
        while left:
            if not self._pending:
                self._pending = memoryview(self._next())
                continue
            piece, self._pending = self._pending[:left], self._pending[left:]
            left -= len(piece)
            self.offset += len(piece)
            yield piece

    def read(self, size: int) -> bytes:
        """The next `size` bytes in one piece."""
        return b"".join(self.each_piece(size))

    def skip(self, size: int) -> None:
        """Pass over the next `size` bytes."""
        for _ in self.each_piece(size):
            pass

    def _next(self) -> bytes:
        for chunk in self._chunks:
            if chunk:
                return chunk
        raise DecodeError("tar archive", "cut off", self.offset)


def each_tar_member(chunks: "Iterable[bytes]", wanted: "Callable[[str], bool]", limit: int) -> "Iterator[TarMember]":
    """Yield the wanted regular files of an archive in its order.

    Args:
        chunks: the archive in pieces.
        wanted: told each regular file's name; true to have it.
        limit: most bytes that one wanted file may have.

    Raises:
        DecodeError: a damaged or cut archive, a wanted file that is larger than `limit`, or too many members. What
            was yielded before stays good.
    """
    stream = _Stream(chunks)
    for _ in range(MAX_MEMBERS):
        header = _next_header(stream)
        if header is None:
            return
        padding = -header.size % _BLOCK
        if header.kind in b"\x000" and wanted(header.name):
            if header.size > limit:
                raise DecodeError("tar archive", f"{header.name} has {header.size} bytes, more than {limit}")
            yield TarMember(header.name, stream.read(header.size))
            stream.skip(padding)
        else:
            stream.skip(header.size + padding)
    raise DecodeError("tar archive", f"more than {MAX_MEMBERS} members", stream.offset)


def _next_header(stream: _Stream) -> _Header | None:
    """The next header with the long names and pax records before it applied; None at the end of the archive."""
    name: str | None = None
    size: int | None = None
    for _ in range(MAX_MEMBERS):
        header = _parse(stream.read(_BLOCK), stream.offset)
        if header is None:
            return None
        if header.kind not in (b"L", b"K", b"x", b"g"):
            return _Header(
                header.name if name is None else _plain(name), header.size if size is None else size, header.kind
            )
        if header.size > MAX_NAME:
            raise DecodeError("tar archive", f"an extended header of {header.size} bytes", stream.offset)
        content = stream.read(header.size)
        stream.skip(-header.size % _BLOCK)
        if header.kind == b"L":
            name = content.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        elif header.kind == b"x":
            records = _pax(content, stream.offset)
            name = records.get("path", name)
            size = _decimal(records["size"], stream.offset) if "size" in records else size
    raise DecodeError("tar archive", "nothing but extended headers", stream.offset)


def _parse(block: bytes, offset: int) -> _Header | None:
    if not any(block):
        return None
    checksum = sum(block) - sum(block[148:156]) + 8 * 0x20
    if _number(block[148:156], offset) != checksum:
        raise DecodeError("tar archive", "a header with a wrong checksum", offset - _BLOCK)
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    whole = prefix + b"/" + name if prefix else name
    return _Header(_plain(whole.decode("utf-8", "surrogateescape")), _number(block[124:136], offset), block[156:157])


def _plain(name: str) -> str:
    return name.removeprefix("./").lstrip("/")


def _number(field: bytes, offset: int) -> int:
    if field[0] & _BASE256:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if value >> 63:
            raise DecodeError("tar archive", "a negative or absurd number", offset)
        return value
    digits = field.strip(b" \0")
    if not all(digit in b"01234567" for digit in digits):
        raise DecodeError("tar archive", f"{digits!r} is not octal", offset)
    return int(digits or b"0", 8)


def _pax(content: bytes, offset: int) -> dict[str, str]:
    records: dict[str, str] = {}
    at = 0
    while at < len(content) and content[at]:
        space = content.find(b" ", at, at + 8)
        length = _decimal(content[at:space].decode("latin-1"), offset) if space > 0 else 0
        record = content[space + 1 : at + length - 1]
        if length <= space - at + 1 or at + length > len(content) or b"=" not in record:
            raise DecodeError("tar archive", "a malformed pax record", offset)
        key, value = record.split(b"=", 1)
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        at += length
    return records


def _decimal(text: str, offset: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):  # noqa: PLR2004 - below 2**63
        raise DecodeError("tar archive", f"{text[:20]!r} is not a number", offset)
    return int(text)
