"""What a mechanism is given: one object's text, its tables, and what the kernel has registered."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from hypervigil.linux.system import KERNEL, System
from hypervigil.linux.text.code import Code
from hypervigil.linux.text.registry import Registry
from hypervigil.linux.text.sites import Table
from hypervigil.memory.symbols import Symbols


class Place(NamedTuple):
    """One object and its surroundings.

    Attributes:
        system: the kernel with its modules.
        code: the object's text as it stands in memory.
        tables: its tables of sites by the name of their section.
        symbols: its own symbols.
        registry: what the kernel has registered about its text.
        original: its text as built and relocated, where a package tells it.
        as_built: gives bytes of the object as built by their address, also where memory does not hold them any more;
            empty bytes for what is not the object's.
        moved_by: how far addresses in `as_built` have moved where that could not be told.
    """

    system: System
    code: Code
    tables: Mapping[str, Table]
    symbols: Symbols
    registry: Registry
    original: Code | None = None
    as_built: Callable[[int, int], bytes] | None = None
    moved_by: int = 0

    def symbol(self, name: str) -> int | None:
        """The address of a symbol of this object, else of the kernel."""
        found = self.symbols.find(name)
        return self.system.find(name, KERNEL) if found is None else found
