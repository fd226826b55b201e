"""Views: one way of finding the things of a kind, and what it shows."""

from collections.abc import Callable

import msgspec

from hypervigil.core.errors import EvidenceError
from hypervigil.core.facts import Gap, Observed


class View(msgspec.Struct, frozen=True, kw_only=True):
    """One view: what it shows by address, or None where it could not be walked.

    Attributes:
        complete: whether everything that is there must be in it.
    """

    name: str
    complete: bool
    seen: frozenset[int] | None
    gaps: tuple[Gap, ...] = ()


def take_view(name: str, walk: Callable[[], Observed[int]], *, complete: bool) -> View:
    """Walk one view; what cannot be walked is a gap, not an empty view."""
    try:
        seen = walk()
    except EvidenceError as fault:
        return View(name=name, complete=complete, seen=None, gaps=(Gap(name, str(fault)),))
    return View(name=name, complete=complete, seen=frozenset(seen.items), gaps=seen.gaps)
