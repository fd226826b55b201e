"""LiME, the memory format of the Linux Memory Extractor: ranges, each behind a header of 32 bytes.

Source: LiME doc/README.md, "Spec": magic 0x4C694D45, version 1, first and last address (inclusive), 8 reserved
bytes, little-endian; the range's bytes follow. AVML writes the same header with version 2 in front of blocks that
are compressed with snappy.
"""

import struct
from typing import TYPE_CHECKING

import msgspec

from hypervigil.core.errors import DecodeError, UnsupportedEvidence
from hypervigil.core.units import PhysAddr

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"EMiL"
"""0x4C694D45 as it lies in the file."""

MAX_RANGES = 1 << 16
"""Ranges that are read; a machine has some tens."""

_HEADER = struct.Struct("<4sIQQ8x")
_PLAIN, _COMPRESSED = 1, 2
_ADDRESS_SPACE = 1 << 52


class LimeRange(msgspec.Struct, frozen=True):
    """A range of physical memory: its first address, where its bytes begin in the file, and how many there are."""

    physical: PhysAddr
    offset: int
    size: int


def each_lime_range(data: memoryview) -> "Iterator[LimeRange]":
    """Walk the headers; the last range may reach beyond the end of a file that was cut short.

    Args:
        data: the whole file.

    Raises:
        UnsupportedEvidence: the compressed variant of AVML.
        DecodeError: no header where one must be, or a range that ends before it begins.
    """
    at = 0
    for _ in range(MAX_RANGES):
        if at >= len(data):
            return
        if at + _HEADER.size > len(data):
            raise DecodeError("lime header", "cut off", at)
        magic, version, first, last = _HEADER.unpack_from(data, at)
        if magic == MAGIC and version == _COMPRESSED:
            raise UnsupportedEvidence("a compressed image of AVML: convert it first (avml-convert --format lime)")
        if magic != MAGIC or version != _PLAIN:
            raise DecodeError("lime header", f"magic {magic!r}, version {version}", at)
        if not first <= last < _ADDRESS_SPACE:
            raise DecodeError("lime header", f"range {first:#x} to {last:#x}", at)
        size = last - first + 1
        yield LimeRange(PhysAddr(first), at + _HEADER.size, size)
        at += _HEADER.size + size
    raise DecodeError("lime header", f"more than {MAX_RANGES} ranges", at)
