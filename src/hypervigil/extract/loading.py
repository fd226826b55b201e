"""Extractors: functions that turn an opened subject into one fact, found by scanning.

The only place where an `EvidenceError` becomes `Unknown`. An extractor that fails otherwise is a mistake of ours and
is left to the caller, which reports it.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar

import msgspec

import hypervigil.extract
from hypervigil.core.errors import EvidenceError, ProgramError
from hypervigil.core.facts import Fact, FactOutcome, Gap, Unknown
from hypervigil.facts.pointers import Pointers, Target
from hypervigil.linux.census import Census
from hypervigil.linux.reference import Reference
from hypervigil.linux.system import System

_TAG = "__hypervigil_extracts__"
_LAST = "__hypervigil_last__"


class Subject(msgspec.Struct, frozen=True, eq=False):
    """What facts are extracted from.

    Attributes:
        system: the opened kernel with its modules.
        census: its processes and machines.
        references: what the user gave to compare with: packages, a vmlinux.
    """

    system: System
    census: Census
    references: tuple[Reference, ...] = ()


Extractor = Callable[[Subject], FactOutcome]
F = TypeVar("F", bound=Extractor)


def extracts(kind: type[Fact], *, last: bool = False) -> Callable[[F], F]:
    """Tag a function as the extractor of a kind of fact.

    Args:
        kind: what it yields.
        last: run it after all others, since it judges what they used.
    """

    def tag(function: F) -> F:
        setattr(function, _TAG, kind)
        setattr(function, _LAST, last)
        return function

    return tag


@cache
def load_extractors() -> dict[type[Fact], Extractor]:
    """Every extractor of the package by the kind of fact it yields, in the order in which they run.

    Raises:
        ProgramError: two extractors yield the same kind.
    """
    found: dict[type[Fact], Extractor] = {}
    for info in pkgutil.iter_modules(hypervigil.extract.__path__, f"{hypervigil.extract.__name__}."):
        module = importlib.import_module(info.name)
        for value in vars(module).values():
            kind = getattr(value, _TAG, None)
            if kind is None or value.__module__ != module.__name__:
                continue
            if kind in found:
                raise ProgramError(f"two extractors yield {kind.__name__}")
            found[kind] = value
    return dict(sorted(found.items(), key=lambda item: (getattr(item[1], _LAST), item[0].__name__)))


def extract(extractor: Extractor, subject: Subject) -> FactOutcome:
    """Run one extractor; what the evidence does not show becomes `Unknown` with its reason."""
    try:
        outcome = extractor(subject)
    except EvidenceError as fault:
        return Unknown(str(fault))
    if not isinstance(outcome, Fact):
        return outcome
    gaps = outcome.gaps
    if isinstance(outcome, Pointers):
        gaps += tuple(sorted({_unplaced(target) for target in outcome.each_target() if not target.placed}))
    return msgspec.structs.replace(outcome, rests_on=outcome.rests_on or subject.system.rests_on, gaps=gaps)


def _unplaced(target: Target) -> Gap:
    return Gap(f"owner of {target.address:#x}", "not every module and its symbols could be read")


def all_unknown(why: str) -> Iterator[tuple[type[Fact], FactOutcome]]:
    """Every kind of fact as unknown, for a subject that could not be opened."""
    for kind in load_extractors():
        yield kind, Unknown(why)
