"""An object as its vendor built it, laid out where it is in memory."""

import bisect
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from hypervigil.linux.text.code import U8, Code
from hypervigil.linux.text.sites import Table


class Part(NamedTuple):
    """A section at its place in memory.

    Attributes:
        name: the section's.
        address: virtual address of its first byte.
        data: its bytes after relocation.
        executable: whether it is code.
        writable: whether it may change at any time.
    """

    name: str
    address: int
    data: U8
    executable: bool
    writable: bool

    @property
    def end(self) -> int:
        """One past its last byte, virtual."""
        return self.address + len(self.data)


class Built:
    """All sections of an object that are or were in memory.

    Args:
        name: ``kernel`` or the module's name.
        source: the reference it comes from, in words.
        parts: the sections.
        moved_by: how far its addresses have moved that could not be told to be ones, since the file does not say.
    """

    def __init__(self, name: str, source: str, parts: tuple[Part, ...], *, moved_by: int = 0) -> None:
        self.name = name
        self.moved_by = moved_by
        self.source = source
        self.parts = tuple(sorted(parts, key=lambda part: part.address))
        self._starts = [part.address for part in self.parts]

    def piece(self, address: int, size: int) -> bytes:
        """The bytes ``[address, address + size)``; empty where they are not in one section."""
        position = bisect.bisect_right(self._starts, address) - 1
        if position < 0 or address + size > self.parts[position].end:
            return b""
        part = self.parts[position]
        return part.data[address - part.address : address - part.address + size].tobytes()

    def tables(self) -> dict[str, Table]:
        """Every section as a table, by its name."""
        return {part.name: Table(part.address, part.data.tobytes()) for part in self.parts if not part.executable}

    def code(self, start: int, end: int, filler: bytes) -> Code:
        """The text ``[start, end)``; what lies between its sections is taken from `filler`, which has as many bytes."""
        whole = np.frombuffer(filler, np.uint8).copy()
        for part in self.each_text(start, end):
            whole[part.address - start : part.end - start] = part.data
        return Code(self.name, start, whole.tobytes())

    def settle(self, places: Iterable[tuple[int, bytes]]) -> None:
        """Take bytes at addresses as built: what the file does not tell and memory holds lawfully."""
        for address, data in places:
            position = bisect.bisect_right(self._starts, address) - 1
            if position >= 0 and address + len(data) <= self.parts[position].end:
                part = self.parts[position]
                part.data[address - part.address : address - part.address + len(data)] = np.frombuffer(data, np.uint8)

    def each_text(self, start: int, end: int) -> Iterator[Part]:
        """The sections of code that lie in ``[start, end)``."""
        return (part for part in self.parts if part.executable and start <= part.address and part.end <= end)

    def each_constant(self) -> Iterator[Part]:
        """The sections that nothing may write."""
        return (part for part in self.parts if not (part.executable or part.writable))
