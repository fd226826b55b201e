"""Facts: typed statements about a system, each beside what could not be seen of it.

A fact is built by an extractor from evidence and consumed by checks. Three things may stand in its place:

- the fact, whole (`gaps` empty) or partial (`gaps` says what is missing);
- `Unknown`: the evidence does not show it;
- `Absent`: the system provably does not have what the fact speaks of (no KVM is loaded).

`Absent` needs proof like any other statement. "We did not find it" is `Unknown`.
"""

from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec

from hypervigil.core.errors import EvidenceError, ProgramError

T = TypeVar("T")


class ImpossibleFact(EvidenceError):
    """A fact that no sound system can give, such as a system call table without slots."""


class Gap(msgspec.Struct, frozen=True, order=True):
    """Something that belongs to a fact and was not seen.

    Attributes:
        what: the unseen thing, such as ``page table at physical 0x1000``.
        why: the reason, such as ``not in the image``.
    """

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


class Observed(msgspec.Struct, Generic[T], frozen=True):
    """What a walk saw, beside what it could not see; a fact takes both over, its own `gaps` are what counts."""

    items: tuple[T, ...]
    gaps: tuple[Gap, ...] = ()


class Unknown(msgspec.Struct, frozen=True):
    """Stands where a fact would, when the evidence does not show it.

    Raises:
        ProgramError: no reason is given.
    """

    why: str

    def __post_init__(self) -> None:
        if not self.why:
            raise ProgramError("unknown without a reason")


class Absent(msgspec.Struct, frozen=True):
    """Stands where a fact would, when the system provably lacks what it speaks of.

    Raises:
        ProgramError: no reason is given.
    """

    why: str

    def __post_init__(self) -> None:
        if not self.why:
            raise ProgramError("absent without a reason")


class Fact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all facts.

    Attributes:
        gaps: what belongs to this fact and was not seen; any gap keeps a verdict from `holds`.
        rests_on: the descriptions that were trusted to read it, such as ``kallsyms in the image``.
    """

    gaps: tuple[Gap, ...] = ()
    rests_on: tuple[str, ...] = ()


FactOutcome = Fact | Unknown | Absent
Facts = Mapping[type[Fact], FactOutcome]


def require(condition: object, statement: str) -> None:
    """Refuse a fact that no sound system can give.

    Raises:
        ImpossibleFact: `condition` is false; extraction turns it into `Unknown`.
    """
    if not condition:
        raise ImpossibleFact(statement)
