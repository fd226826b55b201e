"""Members of kernel structures, probed for by name and never by version.

Kernel structures change from version to version. A reader of them asks for the member it wants, offers the names it
had before, and cites the commit that renamed it where it does so.

Type information comes out of the image as well. Where it says what cannot be (a member of type void, an integer of
2^24 bits, a structure inside itself) drgn refuses in many ways; all of them mean that the type is not described.
"""

import drgn

from hypervigil.core.errors import MissingDescription, MissingMemory

_IMPOSSIBLE = (LookupError, TypeError, ValueError, OverflowError, RecursionError, SyntaxError)
"""What drgn raises for a type that cannot be."""

_NUMBERS = frozenset({drgn.TypeKind.INT, drgn.TypeKind.BOOL, drgn.TypeKind.ENUM, drgn.TypeKind.POINTER})

_MAX_TEXT = 1 << 16


def member(thing: drgn.Object, *paths: str) -> drgn.Object:
    """The first of `paths` that `thing` has; a path goes through nested members, such as ``core_layout.base``.

    Raises:
        MissingDescription: it has none of them.
        MissingMemory: a pointer on the path is not in the image.
    """
    for path in paths:
        found = thing
        try:
            for name in path.split("."):
                found = found.member_(name)
        except _IMPOSSIBLE:
            continue
        except drgn.FaultError as fault:
            raise _not_there(fault) from fault
        return found
    raise MissingDescription(f"{thing.type_.type_name()} has no member {' or '.join(paths)}")


def element(thing: drgn.Object, index: int) -> drgn.Object:
    """An element of an array, or of what a pointer leads to; nothing says that it is within bounds.

    Raises:
        MissingDescription: it is neither.
        MissingMemory: the pointer is not in the image.
    """
    try:
        return thing[index]
    except drgn.FaultError as fault:
        raise _not_there(fault) from fault
    except _IMPOSSIBLE as fault:
        raise MissingDescription(f"{thing.type_.type_name()} has no elements: {fault}") from fault


def _not_there(fault: drgn.FaultError) -> MissingMemory:
    """Drgn asks for no memory that wraps around the end of the address space."""
    return MissingMemory(fault.address, 1, "no such range", virtual=True)


def number(thing: drgn.Object, *paths: str) -> int:
    """The unsigned value of a member, or of `thing` itself without a path; of a pointer, where it leads.

    Raises:
        MissingDescription: there is no such member, or it is no number.
        MissingMemory: it is not in the image.
    """
    found = member(thing, *paths) if paths else thing
    if _plain(found.type_).kind not in _NUMBERS:
        raise MissingDescription(f"{thing.type_.type_name()} {' '.join(paths)} is not a number")
    try:
        value = found.value_()
    except drgn.FaultError as fault:
        raise _not_there(fault) from fault
    except _IMPOSSIBLE as fault:
        raise MissingDescription(f"{thing.type_.type_name()} {' '.join(paths)} has no value: {fault}") from fault
    return int(value & 0xFFFF_FFFF_FFFF_FFFF)


def _plain(kind: drgn.Type) -> drgn.Type:
    """What a typedef stands for."""
    while kind.kind is drgn.TypeKind.TYPEDEF:
        kind = kind.type
    return kind


def text(thing: drgn.Object, *paths: str) -> str:
    """A character array as text, latin-1, up to its NUL or its end.

    Raises:
        MissingDescription: there is no such member, or it is no array.
        MissingMemory: it is not in the image.
    """
    found = member(thing, *paths)
    try:
        raw: bytes | None = found.to_bytes_() if drgn.sizeof(found) <= _MAX_TEXT else None
    except drgn.FaultError as fault:
        raise _not_there(fault) from fault
    except _IMPOSSIBLE as fault:
        raise MissingDescription(f"{thing.type_.type_name()}.{paths[0]} is not text: {fault}") from fault
    if raw is None:
        raise MissingDescription(f"{thing.type_.type_name()}.{paths[0]} is too long for text")
    return str(raw.partition(b"\0")[0], "latin-1")


def length(thing: drgn.Object) -> int:
    """How many elements an array has.

    Raises:
        MissingDescription: it is no array.
    """
    kind = thing.type_
    if kind.kind is not drgn.TypeKind.ARRAY or kind.length is None:
        raise MissingDescription(f"{kind.type_name()} is no array")
    return int(kind.length)


def address_of(thing: drgn.Object, path: str = "") -> int:
    """The virtual address of an object or of a member of it.

    Raises:
        MissingDescription: there is no such member, or it has no address.
    """
    found = member(thing, path) if path else thing
    if found.address_ is None:
        raise MissingDescription(f"{thing.type_.type_name()}.{path} is not in memory")
    return int(found.address_)


def has(thing: drgn.Object | drgn.Type, path: str) -> bool:
    """Whether a structure has a member."""
    kind = thing.type_ if isinstance(thing, drgn.Object) else thing
    for name in path.split("."):
        kind = _plain(kind)
        if kind.kind not in {drgn.TypeKind.STRUCT, drgn.TypeKind.UNION} or not kind.has_member(name):
            return False
        kind = kind.member(name).type
    return True


def offset_of(kind: drgn.Type, path: str) -> int:
    """Byte offset of a member in its type.

    Raises:
        MissingDescription: there is no such member.
    """
    try:
        return int(drgn.offsetof(kind, path))
    except _IMPOSSIBLE as fault:
        raise MissingDescription(f"{kind.type_name()} has no member {path}") from fault
