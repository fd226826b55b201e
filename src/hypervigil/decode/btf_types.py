"""The values that a BTF holds, one record for each kind of type.

Sources: Linux Documentation/bpf/btf.rst and include/uapi/linux/btf.h; ENUM64 since 6.0, signed by the
kind flag.
"""

from enum import IntEnum

import msgspec


class BtfKind(IntEnum):
    """`BTF_KIND_*`, as the kernel numbers them."""

    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


COMPOUND = frozenset({BtfKind.STRUCT, BtfKind.UNION})
"""Kinds that have members."""

ENUMS = frozenset({BtfKind.ENUM, BtfKind.ENUM64})
"""Kinds that have enumerators."""

MODIFIERS = frozenset({BtfKind.TYPEDEF, BtfKind.VOLATILE, BtfKind.CONST, BtfKind.RESTRICT, BtfKind.TYPE_TAG})
"""Kinds that name or qualify another type and have its size."""

SIZED = frozenset({BtfKind.INT, BtfKind.FLOAT, BtfKind.DATASEC}) | COMPOUND | ENUMS
"""Kinds whose third word is a size in bytes; of all others but ARRAY and FWD it is a type id."""


class BtfType(msgspec.Struct, frozen=True):
    """The part that every type has.

    Attributes:
        id: the type's number; 0 is void and has no record.
        kind: what it is.
        name: may be empty (an anonymous struct); latin-1.
        size: bytes, for the kinds in `SIZED`, else None.
        target: id of the type it refers to (pointee, aliased, returned, tagged), else None.
        count: members, enumerators, parameters or variables that follow; for a FUNC its linkage.
        flag: the kind flag: bitfield encoding of a struct, signedness of an enum, union of a FWD.
    """

    id: int
    kind: BtfKind
    name: str
    size: int | None
    target: int | None
    count: int
    flag: bool


class Member(msgspec.Struct, frozen=True):
    """A member of a struct or union.

    Attributes:
        name: empty for an anonymous struct or union.
        type_id: its type.
        bit_offset: from the start of the struct, in bits.
        bit_size: width in bits of a bitfield, 0 for an ordinary member.
    """

    name: str
    type_id: int
    bit_offset: int
    bit_size: int


class Enumerator(msgspec.Struct, frozen=True):
    """A named value of an enum, signed as the enum is."""

    name: str
    value: int


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a function prototype; no name and type 0 in last place stand for `...`."""

    name: str
    type_id: int


class Variable(msgspec.Struct, frozen=True):
    """A variable's place in a section: id of its VAR, offset and size in bytes."""

    type_id: int
    offset: int
    size: int


class Array(msgspec.Struct, frozen=True):
    """Element type, index type and number of elements (0 for a flexible array member)."""

    element: int
    index: int
    count: int


class Integer(msgspec.Struct, frozen=True):
    """How an INT is encoded; `bits` and `bit_offset` differ from its size only in bitfields of old encoders."""

    signed: bool
    char: bool
    boolean: bool
    bit_offset: int
    bits: int
