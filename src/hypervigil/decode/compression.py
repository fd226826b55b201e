"""Decompression of packages and kernels with a bound on what comes out.

A stream is recognised by its first bytes. Whatever is wrong with it, and more output than was allowed, is a
`DecodeError`; memory is bounded by the limit and by a window of 128 MiB.

Sources: RFC 1952 (gzip), the .xz file format, the .lzma format as Linux' scripts/Makefile.lib writes it, RFC 8878
(zstd; the kernel compresses with windows of up to 128 MiB), lz4 doc/lz4_Block_format.md and the legacy frame of
lz4_Frame_format.md, in which the kernel is packed.
"""

import bz2
import lzma
import struct
import zlib
from typing import TYPE_CHECKING, Protocol

import zstandard

from hypervigil.core.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 1 << 20
"""Bytes that a stream yields at most at a time."""

_MAX_WINDOW = 1 << 27
_LZMA_MEMORY = 1 << 28
_LZ4_BLOCK = 8 << 20
_LZ4_MAGIC = b"\x02\x21\x4c\x18"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_HEADER = 18
_ZSTD_RLE = 1
_LONGEST_MAGIC = 6
_EXTENDED = 15
_MIN_MATCH = 4


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """Decompress up to `max_length` bytes."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether more input is wanted."""


def compression_of(data: memoryview) -> str:
    """Name of the compression of a stream: gzip, xz, lzma, zstd, bzip2, lz4, or empty if it is none of these."""
    head = bytes(data[:_LONGEST_MAGIC])
    for magic, (name, _) in _FORMATS.items():
        if head.startswith(magic):
            return name
    return ""


def decompress(data: memoryview, limit: int) -> bytes:
    """Decompress one stream whole; what follows its end is ignored.

    Args:
        data: the stream from its magic on.
        limit: most bytes that may come out.

    Raises:
        DecodeError: no known compression, a damaged or cut stream, or more than `limit` bytes.
    """
    return b"".join(each_chunk(data, limit))


def each_chunk(data: memoryview, limit: int) -> "Iterator[bytes]":
    """Decompress one stream piece by piece, in pieces of at most `CHUNK` bytes (8 MiB for lz4).

    Args:
        data: the stream from its magic on.
        limit: most bytes that may come out.

    Raises:
        DecodeError: as `decompress`.
    """
    head = bytes(data[:_LONGEST_MAGIC])
    for magic, (name, chunks) in _FORMATS.items():
        if head.startswith(magic):
            total = 0
            for chunk in chunks(data):
                total += len(chunk)
                if total > limit:
                    raise DecodeError(f"{name} stream", f"more than {limit} bytes come out")
                yield chunk
            return
    raise DecodeError("compressed stream", f"begins with {head.hex()}, no compression that is known", 0)


def _gzip(data: memoryview) -> "Iterator[bytes]":
    stream = zlib.decompressobj(wbits=31)
    pending: bytes = b""
    at = 0
    while not stream.eof:
        if not pending:
            pending, at = bytes(data[at : at + CHUNK]), at + CHUNK
            if not pending:
                raise DecodeError("gzip stream", "cut off", at)
        try:
            yield stream.decompress(pending, CHUNK)
        except zlib.error as fault:
            raise DecodeError("gzip stream", str(fault)) from fault
        pending = stream.unconsumed_tail


def _xz(data: memoryview) -> "Iterator[bytes]":
    yield from _pump("xz", data, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY))


def _lzma(data: memoryview) -> "Iterator[bytes]":
    yield from _pump("lzma", data, lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY))


def _bzip2(data: memoryview) -> "Iterator[bytes]":
    yield from _pump("bzip2", data, bz2.BZ2Decompressor())


def _pump(name: str, data: memoryview, stream: _Decompressor) -> "Iterator[bytes]":
    at = 0
    while not stream.eof:
        piece = b""
        if stream.needs_input:
            piece, at = bytes(data[at : at + CHUNK]), at + CHUNK
            if not piece:
                raise DecodeError(f"{name} stream", "cut off", at)
        try:
            yield stream.decompress(piece, CHUNK)
        except (lzma.LZMAError, OSError, EOFError) as fault:
            raise DecodeError(f"{name} stream", str(fault)) from fault


def _zstd(data: memoryview) -> "Iterator[bytes]":
    whole = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    try:
        with whole.stream_reader(data[: _zstd_end(data)], read_across_frames=True) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk
    except (zstandard.ZstdError, MemoryError) as fault:
        raise DecodeError("zstd stream", str(fault)) from fault


def _zstd_end(data: memoryview) -> int:
    """Where the frames end, found by walking their blocks: the library reads on into whatever follows."""
    at = 0
    while bytes(data[at : at + 4]) == _ZSTD_MAGIC:
        checksum = 4 if data[at + 4 : at + 5] and data[at + 4] & 4 else 0
        at += zstandard.frame_header_size(bytes(data[at : at + _ZSTD_HEADER]))
        last = False
        while not last:
            block = int.from_bytes(data[at : at + 3], "little")
            last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
            at += 3 + (1 if kind == _ZSTD_RLE else size)
            if at + checksum > len(data):
                raise DecodeError("zstd stream", "cut off", at)
        at += checksum
    return at


def _lz4(data: memoryview) -> "Iterator[bytes]":
    """Blocks of the legacy frame: a length of 32 bits before each, until the data ends or makes no block."""
    at = len(_LZ4_MAGIC)
    first = True
    while at + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, at)
        if not 0 < size <= _LZ4_BLOCK + _LZ4_BLOCK // 255 + 16 or at + 4 + size > len(data):
            break
        yield _lz4_block(bytes(data[at + 4 : at + 4 + size]))
        at, first = at + 4 + size, False
    if first:
        raise DecodeError("lz4 stream", "no whole block", at)


def _lz4_block(block: bytes) -> bytes:
    """Decode one block; written for speed, for it visits some million sequences of a kernel."""
    out = bytearray()
    at, end, size = 0, 0, len(block)
    try:
        while at < size:
            token = block[at]
            at += 1
            length = token >> 4
            if length == _EXTENDED:
                length, at = _lz4_length(block, at)
            end = at + length
            out += block[at:end]
            if end >= size:
                break
            distance = block[end] | block[end + 1] << 8
            at = end + 2
            length = token & _EXTENDED
            if length == _EXTENDED:
                length, at = _lz4_length(block, at)
            length += _MIN_MATCH
            start = len(out) - distance
            if start < 0 or not distance or start + distance + length > _LZ4_BLOCK:
                raise DecodeError("lz4 block", f"a match of {length} bytes, {distance} back from {len(out)}", at)
            match = out[start : start + length]
            out += match if distance >= length else (match * (length // distance + 1))[:length]
    except IndexError as fault:
        raise DecodeError("lz4 block", "cut off", at) from fault
    if len(out) > _LZ4_BLOCK or end > size:
        raise DecodeError("lz4 block", "cut off, or larger than a block may be", at)
    return bytes(out)


def _lz4_length(block: bytes, at: int) -> tuple[int, int]:
    """A length of 15 and more: the bytes that follow are added, up to the first that is not 255."""
    length = _EXTENDED
    while block[at] == 0xFF:  # noqa: PLR2004 - 255 says that another byte follows
        length, at = length + 0xFF, at + 1
    return length + block[at], at + 1


_FORMATS: "dict[bytes, tuple[str, Callable[[memoryview], Iterator[bytes]]]]" = {
    b"\x1f\x8b": ("gzip", _gzip),
    b"\xfd7zXZ\0": ("xz", _xz),
    b"\x5d\0\0": ("lzma", _lzma),
    _ZSTD_MAGIC: ("zstd", _zstd),
    b"BZh": ("bzip2", _bzip2),
    _LZ4_MAGIC: ("lz4", _lz4),
}
