"""The sections of BTF, and where each record begins; `hypervigil.decode.btf` reads the records themselves."""

import struct

import msgspec
import numpy as np
import numpy.typing as npt

from hypervigil.core.errors import DecodeError
from hypervigil.decode.btf_types import BtfKind

MAGIC = 0xEB9F
"""`BTF_MAGIC`, as read on a little-endian machine."""

MAX_SIZE = 1 << 27
"""Bytes; the BTF of vmlinux has 3 to 8 MiB."""

_HEADER = struct.Struct("<HBBIIIII")
_LAYOUT = struct.Struct("<II")
_SWAPPED = 0x9FEB
KINDS = 128
RECORD = 3  # words of struct btf_type
TAIL_WORDS = {BtfKind.INT: 1, BtfKind.ARRAY: 3, BtfKind.VAR: 1, BtfKind.DECL_TAG: 1}
ITEM_WORDS = {
    BtfKind.STRUCT: 3,
    BtfKind.UNION: 3,
    BtfKind.ENUM: 2,
    BtfKind.FUNC_PROTO: 2,
    BtfKind.DATASEC: 3,
    BtfKind.ENUM64: 3,
}

Words = npt.NDArray[np.uint32]


class Sections(msgspec.Struct, frozen=True, eq=False):
    """Types as words, with the byte offset where they begin; strings; lengths of kinds that are not known."""

    types: Words
    types_at: int
    strings: bytes
    layout: bytes


def sections_of(data: bytes) -> Sections:
    """Check the header and cut the data into its sections."""
    if not _HEADER.size <= len(data) <= MAX_SIZE:
        raise DecodeError("btf header", f"{len(data)} bytes are too few or too many")
    magic, version, flags, header, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
    if magic == _SWAPPED:
        raise DecodeError("btf header", "big-endian", 0)
    if magic != MAGIC or version != 1 or flags:
        raise DecodeError("btf header", f"magic {magic:#x}, version {version}, flags {flags:#x}", 0)
    if header < _HEADER.size:
        raise DecodeError("btf header", f"a header of {header} bytes", 4)
    types = _section(data, header, type_off, type_len)
    strings = _section(data, header, str_off, str_len)
    if type_off % 4 or type_len % 4:
        raise DecodeError("btf header", "the types are not aligned to words", 8)
    if strings[-1:] != b"\0":
        raise DecodeError("btf header", "the strings do not end with a NUL", header + str_off)
    layout = b""
    if header >= _HEADER.size + _LAYOUT.size and len(data) >= header:
        layout = _section(data, header, *_LAYOUT.unpack_from(data, _HEADER.size))
    return Sections(np.frombuffer(types, "<u4"), header + type_off, strings, layout)


def _section(data: bytes, header: int, offset: int, length: int) -> bytes:
    start = header + offset
    if start + length > len(data):
        raise DecodeError("btf header", f"a section ends at {start + length:#x}, past the end", start)
    return data[start : start + length]


def index_records(words: Words, layout: bytes) -> npt.NDArray[np.int64]:
    """Word offset of every record, in order of id.

    The length that a record would have is computed for every word at once; then only the real records are
    visited.
    """
    tails, items, known = _lengths(layout)
    infos = words[1:]
    kinds = infos >> 24 & (KINDS - 1)
    steps = (tails[kinds] + items[kinds] * (infos & 0xFFFFFF)).tolist()
    places: list[int] = []
    at, last = 0, len(steps)
    while at < last:
        places.append(at)
        at += steps[at]
    found = np.array(places, np.int64)
    unknown = np.flatnonzero(~known[kinds[found]]) if places else found
    if len(unknown):
        kind = int(kinds[places[unknown[0]]])
        raise DecodeError("btf types", f"type {unknown[0] + 1} is of the unknown kind {kind}", 4 * places[unknown[0]])
    if at != len(words):
        raise DecodeError("btf types", "the last record is cut off", 4 * at)
    return found


def _lengths(layout: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """For each kind: words of its record without items, words of an item, and whether that is known."""
    tails = np.full(KINDS, RECORD, np.int64)
    items = np.zeros(KINDS, np.int64)
    known = np.zeros(KINDS, bool)
    for kind in BtfKind:
        tails[kind] += TAIL_WORDS.get(kind, 0)
        items[kind] = ITEM_WORDS.get(kind, 0)
        known[kind] = True
    for number in range(max(BtfKind) + 1, min(len(layout) // 4, KINDS)):
        info_size, item_size = layout[4 * number], layout[4 * number + 1]
        if info_size % 4 == 0 and item_size % 4 == 0:
            tails[number] += info_size // 4
            items[number] = item_size // 4
            known[number] = True
    return tails, items, known
