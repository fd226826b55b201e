"""BTF, the kernel's own description of its types, of vmlinux or split (a module's, on the base of vmlinux).

The index (place, kind, name and size of each type) is made in bulk; names, members and the rest are
decoded when they are asked for. Nothing is trusted: sections lie inside the data, chains of types are
followed a bounded number of steps, and every id, string and count is checked where it is used.

Sources: Linux Documentation/bpf/btf.rst, include/uapi/linux/btf.h, kernel/bpf/btf.c (btf_parse_hdr).
Newer headers carry a layout section, a `struct btf_layout {u8 info_sz, elem_sz; u16 flags}` for each
kind, by which records of unknown kinds can be stepped over; with it come 7 bits of kind and 24 of vlen,
which older encoders left zero.
"""

from typing import TYPE_CHECKING

import numpy as np

from hypervigil.core.errors import DecodeError
from hypervigil.decode.btf_sections import (
    ITEM_WORDS,
    KINDS,
    RECORD,
    TAIL_WORDS,
    index_records,
    sections_of,
)
from hypervigil.decode.btf_types import (
    COMPOUND,
    ENUMS,
    MODIFIERS,
    SIZED,
    Array,
    BtfKind,
    BtfType,
    Enumerator,
    Integer,
    Member,
    Parameter,
    Variable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CHAIN = 64
"""How many typedefs, qualifiers and arrays may follow one another before a type counts as malformed."""

_MASK = (1 << 64) - 1


class Btf:
    """An indexed BTF; cheap to make, lazy in everything else.

    Args:
        data: the whole BTF from its magic on; copied.
        base: the BTF that this one continues, for the BTF of a module.

    Attributes:
        base: as given.
        first_id: the first type id of this BTF itself: 1, or one past the base's last.
        end_id: one past the last type id.
        string_end: one past the last valid name offset, base included.
        types_at: byte offset of the first record in the data.

    Raises:
        DecodeError: the header, a section or a record is malformed, or a kind is unknown and has no layout.
    """

    def __init__(self, data: bytes | memoryview, base: "Btf | None" = None) -> None:
        sections = sections_of(bytes(data))
        self.base = base
        self._words = sections.types
        self.types_at = sections.types_at
        self._strings = sections.strings
        self._string_start = 0 if base is None else base.string_end
        self.string_end: int = self._string_start + len(self._strings)
        self._places = index_records(self._words, sections.layout)
        self._names = self._words[self._places]
        self._infos = self._words[self._places + 1]
        self._kinds = (self._infos >> 24 & (KINDS - 1)).astype(np.uint8)
        self._named: dict[int, list[int]] | None = None
        self.first_id: int = 1 if base is None else base.end_id
        self.end_id: int = self.first_id + len(self._places)

    def find(self, name: str, *kinds: BtfKind) -> tuple[int, ...]:
        """Ids of all types of that name and of one of those kinds (any but FUNC, when none is given), base first."""
        found = () if self.base is None else self.base.find(name, *kinds)
        try:
            offsets = self._offsets(name.encode("latin-1"))
        except UnicodeEncodeError:
            return ()
        wanted_offsets = np.zeros(self.string_end + 1, bool)
        wanted_offsets[offsets] = True
        positions = np.flatnonzero(wanted_offsets[np.minimum(self._names, self.string_end)])
        wanted = positions if not kinds else positions[np.isin(self._kinds[positions], kinds)]
        return found + tuple((wanted + self.first_id).tolist())

    def each_id(self, kind: BtfKind) -> "Iterator[int]":
        """Ids of all types of one kind in this BTF itself, ascending."""
        yield from (np.flatnonzero(self._kinds == kind) + self.first_id).tolist()

    def type(self, type_id: int) -> BtfType:
        """The common part of a type.

        Raises:
            DecodeError: no such id (0, void, has no record), an unknown kind, or a name outside of the
                strings.
        """
        owner, place = self._locate(type_id)
        name, info, third = owner._words[place : place + RECORD].tolist()  # noqa: SLF001 - same class
        kind = _known(info >> 24 & (KINDS - 1), type_id)
        sized = kind in SIZED
        return BtfType(
            id=type_id,
            kind=kind,
            name=owner.string(name),
            size=third if sized else None,
            target=None if sized or kind in {BtfKind.ARRAY, BtfKind.FWD} else third,
            count=info & 0xFFFFFF,
            flag=bool(info >> 31),
        )

    def record(self, type_id: int) -> tuple[int, int]:
        """Half-open range of a type's record in the data of the BTF that has it, in bytes.

        Raises:
            DecodeError: no such type.
        """
        owner, place = self._locate(type_id)
        this = self.type(type_id)
        words = RECORD + ITEM_WORDS.get(this.kind, 0) * this.count + TAIL_WORDS.get(this.kind, 0)
        return owner.types_at + 4 * place, owner.types_at + 4 * (place + words)

    def string(self, offset: int) -> str:
        """The string at a name offset, base included; latin-1, so that no byte is lost.

        Raises:
            DecodeError: the offset lies outside of the strings.
        """
        if self.base is not None and offset < self._string_start:
            return self.base.string(offset)
        start = offset - self._string_start
        end = self._strings.find(b"\0", start) if start < len(self._strings) else -1
        if end < 0:
            raise DecodeError("btf string", f"name offset {offset} is outside of the strings")
        return self._strings[start:end].decode("latin-1")

    def members(self, type_id: int) -> tuple[Member, ...]:
        """Members of a struct or union, in order.

        Raises:
            DecodeError: no such type, or another kind.
        """
        owner = self._expect(type_id, COMPOUND)
        return tuple(
            Member(
                self.string(name),
                kind,
                offset & 0xFFFFFF if owner.flag else offset,
                offset >> 24 if owner.flag else 0,
            )
            for name, kind, offset in self._items(owner)
        )

    def enumerators(self, type_id: int) -> tuple[Enumerator, ...]:
        """Values of an ENUM or ENUM64, signed or not as the kind flag says.

        Raises:
            DecodeError: no such type, or another kind.
        """
        owner = self._expect(type_id, ENUMS)
        bits = 64 if owner.kind is BtfKind.ENUM64 else 32
        found = []
        for name, low, *high in self._items(owner):
            value = low | (high[0] << 32 if high else 0)
            negative = owner.flag and value >> (bits - 1)
            found.append(Enumerator(self.string(name), value - (1 << bits) if negative else value))
        return tuple(found)

    def parameters(self, type_id: int) -> tuple[Parameter, ...]:
        """Parameters of a FUNC_PROTO.

        Raises:
            DecodeError: no such type, or another kind.
        """
        owner = self._expect(type_id, frozenset({BtfKind.FUNC_PROTO}))
        return tuple(Parameter(self.string(name), kind) for name, kind in self._items(owner))

    def variables(self, type_id: int) -> tuple[Variable, ...]:
        """Variables of a DATASEC.

        Raises:
            DecodeError: no such type, or another kind.
        """
        owner = self._expect(type_id, frozenset({BtfKind.DATASEC}))
        return tuple(Variable(*item) for item in self._items(owner))

    def array(self, type_id: int) -> Array:
        """Element, index and length of an ARRAY.

        Raises:
            DecodeError: no such type, or another kind.
        """
        self._expect(type_id, frozenset({BtfKind.ARRAY}))
        return Array(*self._tail(type_id, 3))

    def integer(self, type_id: int) -> Integer:
        """Encoding of an INT.

        Raises:
            DecodeError: no such type, or another kind.
        """
        self._expect(type_id, frozenset({BtfKind.INT}))
        (raw,) = self._tail(type_id, 1)
        encoding = raw >> 24
        return Integer(bool(encoding & 1), bool(encoding & 2), bool(encoding & 4), raw >> 16 & 0xFF, raw & 0xFF)

    def tail_word(self, type_id: int) -> int:
        """Linkage of a VAR (0 static, 1 global, 2 extern), or the component a DECL_TAG tags (-1: the whole).

        Raises:
            DecodeError: no such type, or another kind.
        """
        owner = self._expect(type_id, frozenset({BtfKind.VAR, BtfKind.DECL_TAG}))
        (word,) = self._tail(type_id, 1)
        return word - (1 << 32) if owner.kind is BtfKind.DECL_TAG and word >> 31 else word

    def strip(self, type_id: int) -> int:
        """The type behind typedefs and qualifiers; 0 for void.

        Raises:
            DecodeError: no such type, or more than `MAX_CHAIN` of them (a cycle).
        """
        for _ in range(MAX_CHAIN):
            if type_id == 0:
                return 0
            this = self.type(type_id)
            if this.kind not in MODIFIERS or this.target is None:
                return type_id
            type_id = this.target
        raise DecodeError("btf type", f"type {type_id} is an endless chain of typedefs or qualifiers")

    def size_of(self, type_id: int) -> int:
        """Bytes of a value of a type, through typedefs, qualifiers and arrays; pointers have 8.

        Raises:
            DecodeError: no such type, a type without a size (void, a function, a forward declaration), or an
                endless chain.
        """
        count = 1
        for _ in range(MAX_CHAIN):
            type_id = self.strip(type_id)
            this = self.type(type_id)
            if this.kind is not BtfKind.ARRAY:
                size = 8 if this.kind is BtfKind.PTR else this.size
                if size is None:
                    raise DecodeError("btf type", f"{this.kind.name} {this.name!r} has no size")
                return count * size
            array = self.array(type_id)
            count, type_id = count * array.count & _MASK, array.element
        raise DecodeError("btf type", f"type {type_id} is an endless chain of arrays")

    def _by_name(self) -> dict[int, list[int]]:
        """Positions of the named types by their name's offset, functions left out; made when it is first needed."""
        if self._named is None:
            self._named = {}
            wanted = np.flatnonzero((self._names != 0) & (self._kinds != BtfKind.FUNC))
            for position, name in zip(wanted.tolist(), self._names[wanted].tolist(), strict=True):
                self._named.setdefault(name, []).append(position)
        return self._named

    def _offsets(self, encoded: bytes) -> list[int]:
        """Name offsets, in this BTF's strings or its base's, from which that string runs up to its NUL."""
        found = [] if self.base is None else self.base._offsets(encoded)  # noqa: SLF001 - same class
        at = self._strings.find(encoded + b"\0")
        while at >= 0:
            found.append(at + self._string_start)
            at = self._strings.find(encoded + b"\0", at + 1)
        return found

    def _locate(self, type_id: int) -> "tuple[Btf, int]":
        owner = self
        while type_id < owner.first_id and owner.base is not None:
            owner = owner.base
        if not owner.first_id <= type_id < owner.end_id:
            raise DecodeError("btf type", f"no type {type_id}: there are {self.end_id - 1}")
        return owner, int(owner._places[type_id - owner.first_id])  # noqa: SLF001 - same class

    def _expect(self, type_id: int, kinds: frozenset[BtfKind]) -> BtfType:
        found = self.type(type_id)
        if found.kind not in kinds:
            wanted = " or ".join(sorted(kind.name for kind in kinds))
            raise DecodeError("btf type", f"type {type_id} is a {found.kind.name}, not a {wanted}")
        return found

    def _tail(self, type_id: int, words: int) -> list[int]:
        owner, place = self._locate(type_id)
        start = place + RECORD
        tail: list[int] = owner._words[start : start + words].tolist()  # noqa: SLF001 - same class
        return tail

    def _items(self, owner: BtfType) -> list[list[int]]:
        width = ITEM_WORDS[owner.kind]
        raw = self._tail(owner.id, width * owner.count)
        return [raw[i : i + width] for i in range(0, len(raw), width)]


def _known(kind: int, type_id: int) -> BtfKind:
    if kind in BtfKind._value2member_map_:
        return BtfKind(kind)
    raise DecodeError("btf type", f"type {type_id} is of the unknown kind {kind}")
