"""Offsets of structure members, from the BTF that the host itself offers in /sys/kernel/btf.

A second, much smaller reader than the product's, so that the range does not rest on what it tests. It also tells
where in the BTF the offset is written, for the scenario that forges one.

Source: Documentation/bpf/btf.rst of the kernel.
"""

import struct
from collections.abc import Iterator

import msgspec

from hypervigil.core.errors import UsageError

_HEADER = struct.Struct("<HBBIIIII")
_MAGIC = 0xEB9F
_TYPE = struct.Struct("<III")
_STRUCT, _UNION = 4, 5
_TRAILER = {1: 4, 3: 12, 14: 4, 17: 4}
_PER_ITEM = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
_KIND_FLAG = 1 << 31


class Member(msgspec.Struct, frozen=True):
    """A member of a structure.

    Attributes:
        offset: bytes from the start of the structure.
        record: byte offset in the BTF of the member's 32-bit offset field.
    """

    offset: int
    record: int


class _Type(msgspec.Struct, frozen=True):
    name: int
    size: int
    kind: int
    count: int
    flag: bool
    at: int


class Btf:
    """The BTF of the kernel, or of a module on top of it."""

    def __init__(self, data: bytes, base: "Btf | None" = None) -> None:
        if len(data) < _HEADER.size or _HEADER.unpack_from(data)[0] != _MAGIC:
            raise UsageError("this kernel offers no BTF")
        _, _, _, size, type_at, type_size, text_at, text_size = _HEADER.unpack_from(data)
        self._data = data
        self._base = base
        self._text = data[size + text_at : size + text_at + text_size]
        self._types = list(self._each_type(size + type_at, size + type_at + type_size))

    def _each_type(self, at: int, end: int) -> Iterator[_Type]:
        while at + _TYPE.size <= end:
            name, info, size = _TYPE.unpack_from(self._data, at)
            kind, count = (info >> 24) & 0x1F, info & 0xFFFF
            at += _TYPE.size
            yield _Type(name, size, kind, count, bool(info & _KIND_FLAG), at)
            at += _TRAILER.get(kind, 0) + count * _PER_ITEM.get(kind, 0)

    @property
    def _first_id(self) -> int:
        return 1 if self._base is None else self._base._first_id + len(self._base._types)  # noqa: SLF001 - its own kind

    @property
    def _first_text(self) -> int:
        return 0 if self._base is None else self._base._first_text + len(self._base._text)  # noqa: SLF001 - its own kind

    def _name(self, at: int) -> str:
        own = at - self._first_text
        if own < 0 and self._base is not None:
            return self._base._name(at)  # noqa: SLF001 - its own kind
        return self._text[own : self._text.find(b"\0", own)].decode("ascii", "replace")

    def _structures(self, name: str) -> "Iterator[tuple[Btf, _Type]]":
        """Its own, then those of its base: what the kernel knows of a module's types is not said again."""
        for kind in self._types:
            if kind.kind == _STRUCT and kind.count and self._name(kind.name) == name:
                yield self, kind
        if self._base is not None:
            yield from self._base._structures(name)  # noqa: SLF001 - its own kind

    def size(self, structure: str) -> int:
        """Bytes of a structure.

        Raises:
            UsageError: there is no such structure.
        """
        for _, kind in self._structures(structure):
            return kind.size
        raise UsageError(f"the host's BTF has no struct {structure}")

    def member(self, structure: str, path: str) -> Member:
        """Where a member is; `path` may go through nested structures ("signal.head").

        Raises:
            UsageError: there is no such structure or member.
        """
        for owner, kind in self._structures(structure):
            found = owner._walk(kind, path.split("."))  # noqa: SLF001 - its own kind
            if found is not None:
                return found
        raise UsageError(f"the host's BTF has no {structure}.{path}")

    def _walk(self, kind: _Type, path: list[str]) -> Member | None:
        for at in range(kind.at, kind.at + 12 * kind.count, 12):
            name_at, type_id, bits = _TYPE.unpack_from(self._data, at)
            offset = (bits & 0xFFFFFF if kind.flag else bits) // 8
            name = self._name(name_at)
            if name == path[0] and len(path) == 1:
                return Member(offset, at + 8)
            if name not in {"", path[0]}:
                continue
            inner = self._aggregate(type_id)
            found = None if inner is None else inner[0]._walk(inner[1], path[1:] if name else path)  # noqa: SLF001 - its own kind
            if found is not None:
                return Member(offset + found.offset, found.record)
        return None

    def _aggregate(self, type_id: int) -> "tuple[Btf, _Type] | None":
        own = type_id - self._first_id
        if own < 0:
            return None if self._base is None else self._base._aggregate(type_id)  # noqa: SLF001 - its own kind
        if own >= len(self._types) or self._types[own].kind not in {_STRUCT, _UNION}:
            return None
        return self, self._types[own]
