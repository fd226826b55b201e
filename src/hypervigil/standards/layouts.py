"""Layouts of kernel structures that no type information in an image describes.

Modules have BTF since 5.11 (36e68442d1af "bpf: Load and verify kernel module BTFs"); in a 5.10 image nothing says
what KVM's own structures look like. A layout is used only where the image has no type of that name, and whoever uses
it compares it with something that the image does have: the size of a table's symbol, a pointer back.
"""

from functools import cache
from importlib.resources import files

import msgspec


class Layout(msgspec.Struct, frozen=True):
    """Size in bytes and members ``(name, byte offset, type)``.

    A type is ``function *``, ``void *``, ``struct NAME`` or ``N bytes``.
    """

    size: int
    members: tuple[tuple[str, int, str], ...]


class LayoutSet(msgspec.Struct, frozen=True):
    """Layouts by the type's C name, and where they come from."""

    source: str
    types: dict[str, Layout]


@cache
def kvm_layouts() -> LayoutSet:
    """KVM's structures of Linux 5.10; made by tools/make_layouts.py."""
    data = files("hypervigil.standards").joinpath("data/kvm_layouts.json").read_bytes()
    return msgspec.json.decode(data, type=LayoutSet)
