"""Tables of pointers: where each leads and to whom that place belongs."""

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from hypervigil.core.errors import ProgramError
from hypervigil.core.evidence import Span
from hypervigil.core.facts import Fact, require


class Section(StrEnum):
    """The kind of memory an address lies in, by the kernel's own layout."""

    TEXT = "text"
    RODATA = "rodata"
    DATA = "data"
    INIT = "init"
    NOWHERE = ""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a pointer leads.

    Attributes:
        address: the pointer's value, virtual; 0 for an empty slot.
        symbol: the nearest symbol at or below it in the same owner; empty if there is none.
        offset: bytes from the symbol's start; 0 means an exact hit.
        owner: ``kernel``, a module's name, or empty if the address belongs to nobody.
        section: what kind of memory it is.
        aliases: other symbols at exactly this address.
        placed: whether owner and symbol could be looked up; if not, nothing can be said of the pointer, and the fact
            that holds it has a gap.
    """

    address: int
    symbol: str = ""
    offset: int = 0
    owner: str = ""
    section: Section = Section.NOWHERE
    aliases: tuple[str, ...] = ()
    placed: bool = True

    def __str__(self) -> str:
        if self.address == 0:
            return "nothing"
        where = f" [{self.owner}]" if self.owner and self.owner != "kernel" else ""
        if not self.placed:
            return f"{self.address:#x}, whose owner could not be read"
        if not self.symbol:
            return f"{self.address:#x} in {self.owner}" if self.owner else f"{self.address:#x}, memory of nobody"
        return f"{self.symbol}{f'+{self.offset:#x}' if self.offset else ''}{where}"


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """One pointer of a table.

    Attributes:
        name: in the kernel's own terms, such as ``kvm_x86_ops.handle_exit``.
        address: virtual address of the pointer itself.
        target: where it leads.
        span: the pointer's bytes in the evidence.
        wanted: symbols of which one must stand here, where that is known; empty otherwise.
    """

    name: str
    address: int
    target: Target
    span: tuple[Span, ...]
    wanted: tuple[str, ...] = ()


class Pointers(Fact, kw_only=True, frozen=True):
    """Base of facts that are made of pointers."""

    def each_target(self) -> Iterator[Target]:
        """Where each pointer of the fact leads."""
        raise ProgramError(f"{type(self).__name__} does not say where its pointers lead")


class PointerTable(Pointers, kw_only=True, frozen=True):
    """A table of pointers; each kind of table is a fact of its own.

    Raises:
        ImpossibleFact: there is no slot, or none that is set: no sound kernel has such a table.
    """

    slots: tuple[Slot, ...]

    def __post_init__(self) -> None:
        require(self.slots or self.gaps, f"{type(self).__name__} without slots")
        require(self.gaps or any(slot.target.address for slot in self.slots), f"{type(self).__name__} is all zero")

    def each_target(self) -> Iterator[Target]:
        """Where each slot leads."""
        return (slot.target for slot in self.slots)


class Objects(Pointers, kw_only=True, frozen=True):
    """Pointers out of objects of which a sound system may have none, such as the files that VMs have open.

    Attributes:
        slots: the pointers found.
        looked_at: how many containers were walked to find them; a walk over none is no walk.
    """

    slots: tuple[Slot, ...]
    looked_at: int

    def __post_init__(self) -> None:
        require(self.looked_at > 0, f"{type(self).__name__}: nothing was walked")

    def each_target(self) -> Iterator[Target]:
        """Where each slot leads."""
        return (slot.target for slot in self.slots)
