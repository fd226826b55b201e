"""Cross-views: the same things as seen through independent structures of the kernel."""

import msgspec

from hypervigil.core.evidence import Span
from hypervigil.core.facts import Fact, require


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One thing, and which views show it.

    Attributes:
        key: what identifies it across views, usually its structure's virtual address.
        name: the name it gives itself; may be forged.
        views: the views that show it.
        excused: views that need not show it, each with the reason, as ``view: reason``.
        span: its structure in the evidence.
    """

    key: int
    name: str
    views: tuple[str, ...]
    span: tuple[Span, ...]
    excused: tuple[str, ...] = ()


class CrossView(Fact, kw_only=True, frozen=True):
    """All members over all views that could be walked.

    Raises:
        ImpossibleFact: fewer than two views: then there is nothing to compare.
    """

    views: tuple[str, ...]
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        require(len(self.views) > 1, f"{type(self).__name__} with fewer than two views")
