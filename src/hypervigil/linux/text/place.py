"""What a mechanism is given: one object's text, its tables, and what the kernel has registered."""

from collections.abc import Mapping
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
    """

    system: System
    code: Code
    tables: Mapping[str, Table]
    symbols: Symbols
    registry: Registry
    original: Code | None = None

    def symbol(self, name: str) -> int | None:
        """The address of a symbol of this object, else of the kernel."""
        found = self.symbols.find(name)
        return self.system.find(name, KERNEL) if found is None else found
