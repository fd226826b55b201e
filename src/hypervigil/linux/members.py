"""Members of kernel structures, probed for by name and never by version.

Kernel structures change from version to version. A reader of them asks for the member it wants, offers the names it
had before, and cites the commit that renamed it where it does so.
"""

import drgn

from hypervigil.core.errors import MissingDescription


def member(thing: drgn.Object, *paths: str) -> drgn.Object:
    """The first of `paths` that `thing` has; a path goes through nested members, such as ``core_layout.base``.

    Raises:
        MissingDescription: it has none of them.
    """
    for path in paths:
        found = thing
        try:
            for name in path.split("."):
                found = found.member_(name)
        except (LookupError, TypeError):
            continue
        return found
    raise MissingDescription(f"{thing.type_.type_name()} has no member {' or '.join(paths)}")


def number(thing: drgn.Object, *paths: str) -> int:
    """The unsigned value of a member, or of `thing` itself without a path; of a pointer, where it leads.

    Raises:
        MissingDescription: there is no such member, or it is no number.
        MissingMemory: it is not in the image.
    """
    value = member(thing, *paths).value_() if paths else thing.value_()
    if not isinstance(value, int):
        raise MissingDescription(f"{thing.type_.type_name()} {' '.join(paths)} is not a number")
    return int(value & 0xFFFF_FFFF_FFFF_FFFF)


def text(thing: drgn.Object, *paths: str) -> str:
    """A character array as text, latin-1, up to its NUL or its end.

    Raises:
        MissingDescription: there is no such member, or it is no array.
        MissingMemory: it is not in the image.
    """
    found = member(thing, *paths)
    try:
        raw: bytes = found.to_bytes_()
    except (TypeError, ValueError) as fault:
        raise MissingDescription(f"{thing.type_.type_name()}.{paths[0]} is not text: {fault}") from fault
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
        while kind.kind is drgn.TypeKind.TYPEDEF:
            kind = kind.type
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
    except (LookupError, TypeError, SyntaxError, ValueError) as fault:
        raise MissingDescription(f"{kind.type_name()} has no member {path}") from fault
