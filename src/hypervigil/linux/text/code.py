"""The text of one object in memory, as arrays, and many small reads at once.

Everything that judges text works on whole tables of places: thousands of reads of a few bytes become one.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hypervigil.core.errors import MissingMemory
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.memory.kernel import Kernel
from hypervigil.memory.pagetable import translate
from hypervigil.memory.space import AddressSpace

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_MASK = PAGE_SIZE - 1
MAX_TEXT = 1 << 28
"""Bytes of text that one object may have; kernels have some 20 MiB."""


class Code:
    """The bytes of half-open ``[start, end)``, virtual; what is missing reads as zero and is never judged.

    Args:
        owner: ``kernel`` or the module's name.
        start: virtual address of the first byte.
        data: the bytes.
        missing: half-open ranges that are not in the evidence, sorted.
    """

    def __init__(self, owner: str, start: int, data: bytes, missing: tuple[tuple[int, int], ...] = ()) -> None:
        self.owner = owner
        self.start = start
        self.end = start + len(data)
        self.data = data
        self.missing = missing
        self.bytes: U8 = np.frombuffer(data, np.uint8)

    def offsets(self, addresses: U64) -> I64:
        """Distance of each address from the start, in bytes."""
        return (addresses - np.uint64(self.start)).astype(np.int64)

    def holds(self, addresses: U64, size: int | I64) -> Mask:
        """Whether `size` bytes at each address lie in this text and in the evidence."""
        at = self.offsets(addresses)
        inside: Mask = (at >= 0) & (at <= len(self.data) - size)
        for low, high in self.missing:
            inside &= (at >= high - self.start) | (at <= low - self.start - size)
        return inside

    def rows(self, addresses: U64, width: int) -> U8:
        """`width` bytes at each address, one row an address; bytes outside of this text are zero."""
        at = self.offsets(addresses)
        last = len(self.data) - width
        found: U8 = np.zeros((len(at), width), np.uint8)
        whole = (at >= 0) & (at <= last)
        if last >= 0:
            found[whole] = np.lib.stride_tricks.sliding_window_view(self.bytes, width)[at[whole]]
        for row in np.flatnonzero((at > last) & (at < len(self.data)) & (at >= 0)).tolist():
            rest = self.bytes[at[row] :]
            found[row, : len(rest)] = rest
        return found

    def piece(self, address: int, size: int) -> bytes:
        """The bytes ``[address, address + size)``, cut where this text ends."""
        at = address - self.start
        return self.data[max(at, 0) : max(at + size, 0)]


class Gathered(NamedTuple):
    """Many small reads.

    Attributes:
        rows: one row of bytes an address.
        seen: whether they are in the evidence; the others read as zero.
    """

    rows: U8
    seen: Mask

    def u64(self, at: int = 0) -> U64:
        """The unsigned 64-bit integer at a byte offset of each row."""
        return np.ascontiguousarray(self.rows[:, at : at + 8]).view("<u8").reshape(-1)

    def s32(self, at: int = 0) -> I64:
        """The signed 32-bit integer at a byte offset of each row."""
        return signed32(self.rows, at)


def signed32(rows: U8, at: int) -> I64:
    """The signed 32-bit little-endian integer at byte `at` of each row."""
    return np.ascontiguousarray(rows[:, at : at + 4]).view("<i4").reshape(-1).astype(np.int64)


def moved(addresses: U64, distances: I64) -> U64:
    """Addresses plus signed distances, modulo 2**64."""
    return addresses + distances.astype(np.uint64)


def branch_targets(addresses: U64, rows: U8, opcode: int) -> U64:
    """Where a relative branch of 32 bits leads whose opcode has `opcode` bytes, for each address and its bytes."""
    return moved(addresses, signed32(rows, opcode) + (opcode + 4))


def is_any(rows: U8, *patterns: bytes) -> Mask:
    """Whether each row begins with one of `patterns`."""
    found: Mask = np.zeros(len(rows), np.bool_)
    for pattern in patterns:
        found |= (rows[:, : len(pattern)] == np.frombuffer(pattern, np.uint8)).all(axis=1)
    return found


def distinct(values: U64) -> U64:
    """The values in ascending order, each once."""
    ordered = np.sort(values)
    kept: U64 = ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered
    return kept


def among(values: U64, known: U64) -> Mask:
    """Which values are among `known`, which is ascending."""
    if not len(known):
        return np.zeros(len(values), np.bool_)
    found: Mask = known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values
    return found


def gather(space: AddressSpace, addresses: U64, width: int) -> Gathered:
    """Read `width` bytes, at most a page, at each address; one read for each page that is touched."""
    rows = np.zeros((len(addresses), width), np.uint8)
    seen: Mask = np.zeros(len(addresses), np.bool_)
    if not len(addresses):
        return Gathered(rows, seen)
    inside = (addresses & np.uint64(_MASK)).astype(np.int64)
    whole = np.flatnonzero(inside + width <= PAGE_SIZE)
    order = whole[np.argsort(addresses[whole], kind="stable")]
    page_of = addresses[order] & ~np.uint64(_MASK)
    pages = distinct(page_of)
    cuts = np.append(np.searchsorted(page_of, pages), len(order))
    for position, page in enumerate(pages.tolist()):
        chosen = order[cuts[position] : cuts[position + 1]]
        data = _page(space, page)
        if data is not None:
            rows[chosen] = data.take(inside[chosen, None] + np.arange(width))
            seen[chosen] = True
    for row in np.flatnonzero(inside + width > PAGE_SIZE).tolist():
        try:
            rows[row] = np.frombuffer(space.read(VirtAddr(int(addresses[row])), width), np.uint8)
            seen[row] = True
        except MissingMemory:
            continue
    return Gathered(rows, seen)


def _page(space: AddressSpace, page: int) -> U8 | None:
    try:
        return np.frombuffer(space.read(VirtAddr(page), PAGE_SIZE), np.uint8)
    except MissingMemory:
        return None


def read_code(kernel: Kernel, owner: str, start: int, end: int) -> Code:
    """Read the text ``[start, end)`` of an object, page by page as the page tables map it.

    Raises:
        MissingMemory: it has no bytes, or more than `MAX_TEXT`.
    """
    if not 0 < end - start <= MAX_TEXT:
        raise MissingMemory(start, end - start, f"the text of {owner} has an impossible size", virtual=True)
    pieces: list[bytes] = []
    missing: list[tuple[int, int]] = []
    for at, size, data in _each_piece(kernel, start, end):
        pieces.append(bytes(size) if data is None else data)
        if data is None:
            missing.append((at, at + size))
    whole = b"".join(pieces)
    if kernel.memory.zero_is_missing:
        missing += [*_zero_pages(start, whole), *_zero_edges(kernel, start, end)]
    return Code(owner, start, whole, _joined(missing))


def _each_piece(kernel: Kernel, start: int, end: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Mapped pieces, whole leaves where they are in the evidence, else page by page."""
    at = start
    while at < end:
        page = min(end, (at & ~_MASK) + PAGE_SIZE)
        try:
            found = translate(kernel.memory, kernel.location.root, kernel.location.levels, VirtAddr(at))
        except MissingMemory:
            yield at, page - at, None
            at = page
            continue
        for size in (min(found.rest, end - at), page - at):
            try:
                data = kernel.memory.read(found.address, size)
            except MissingMemory:
                continue
            yield at, size, data
            at += size
            break
        else:
            yield at, page - at, None
            at = page


def _zero_pages(start: int, data: bytes) -> list[tuple[int, int]]:
    """Pages that are zero from end to end, in a format where that cannot be told from missing."""
    lead = -start & _MASK
    whole = (len(data) - lead) // PAGE_SIZE if len(data) > lead else 0
    if not whole:
        return []
    pages = np.frombuffer(data, np.uint8, whole * PAGE_SIZE, lead).reshape(whole, PAGE_SIZE)
    suspects = np.flatnonzero(~pages[:, ::256].any(axis=1))
    zero = [index for index in suspects.tolist() if not pages[index].any()]
    return [(start + lead + index * PAGE_SIZE, start + lead + (index + 1) * PAGE_SIZE) for index in zero]


def _zero_edges(kernel: Kernel, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Parts of a text at its ends that stand in pages that are zero as a whole, also outside of the text."""
    for page in {edge & ~_MASK for edge in (start, end) if edge & _MASK}:
        low, high = max(start, page), min(end, page + PAGE_SIZE)
        try:
            kernel.space.read(VirtAddr(low), high - low)
        except MissingMemory:
            yield low, high


def _joined(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and joined[-1][1] >= low:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return tuple(joined)
