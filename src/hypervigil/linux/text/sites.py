"""Patch sites: what each mechanism says of the places it patches, and the tables that name these places."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from hypervigil.linux.text.code import I64, U64, Code, Mask

NOP5 = (
    b"\x0f\x1f\x44\x00\x00",
    b"\x66\x66\x66\x66\x90",
    b"\x3e\x8d\x74\x26\x00",
    b"\x66\x66\x66\x90\x90",
)
"""Five bytes of nothing: of newer processors, of K8, of 32-bit code and what 5.x compiles in (asm/nops.h)."""

INT3 = 0xCC
CALL = 0xE8
JMP = 0xE9
JMP8 = 0xEB
RET = 0xC3

_RELATIVE = 4


class Table(NamedTuple):
    """A table of places.

    Attributes:
        address: virtual address at which it stands; relative places count from there.
        data: its bytes.
    """

    address: int
    data: bytes


class Sites(NamedTuple):
    """The places of one mechanism in one object.

    Attributes:
        kind: the mechanism, such as ``jump label``.
        address: virtual address of each site.
        size: bytes of each site.
        states: legal states by name, and which sites are in each.
        legal: what is legal, in words.
        expected: for a position in `address`, the values that may stand there, the likeliest one first.
        owners: for a position in `address`, who uses the site lawfully, where that is worth saying.
        unseen: what could not be looked up, as ``(what, why)``; sites that depend on it count as legal here.
    """

    kind: str
    address: U64
    size: I64
    states: tuple[tuple[str, Mask], ...]
    legal: str
    expected: Callable[[int], tuple[bytes, ...]]
    owners: Mapping[int, str] = {}
    unseen: tuple[tuple[str, str], ...] = ()

    def lawful(self) -> Mask:
        """Which sites hold a legal value."""
        found: Mask = np.zeros(len(self.address), np.bool_)
        for _, mask in self.states:
            found |= mask
        return found


def sizes(count: int, size: int) -> I64:
    """The same size for every site."""
    return np.full(count, size, np.int64)


def relative_places(table: Table) -> U64:
    """Addresses that a table of signed 32-bit distances names, each counted from the distance's own place.

    Such tables are .smp_locks, .return_sites, .retpoline_sites, .call_sites and .ibt_endbr_seal.
    """
    count = len(table.data) // _RELATIVE
    distances = np.frombuffer(table.data, "<i4", count).astype(np.int64)
    places: U64 = np.uint64(table.address) + np.arange(count, dtype=np.uint64) * np.uint64(_RELATIVE)
    return places + distances.astype(np.uint64)


def column(table: Table, width: int, offset: int) -> tuple[U64, I64]:
    """A column of signed 32-bit numbers of a table whose entries have `width` bytes, and where each stands."""
    count = len(table.data) // width
    raw = np.frombuffer(table.data, np.uint8, count * width).reshape(count, width)
    values = np.ascontiguousarray(raw[:, offset : offset + 4]).view("<i4").reshape(-1).astype(np.int64)
    places: U64 = np.uint64(table.address + offset) + np.arange(count, dtype=np.uint64) * np.uint64(width)
    return places, values


def places_in(code: Code, table: Table, size: int) -> U64:
    """The places of a relative table that lie in `code`; those of memory that was freed after init do not."""
    found = relative_places(table)
    kept: U64 = found[code.holds(found, size)]
    return kept


def branch(opcode: int, address: int, target: int) -> bytes:
    """A relative branch of five bytes from `address` to `target`."""
    distance = (target - address - 5 + (1 << 31)) % (1 << 64) - (1 << 31)
    if not -(1 << 31) <= distance < 1 << 31:
        return b""
    return bytes([opcode]) + (distance & 0xFFFF_FFFF).to_bytes(4, "little")
