"""Two disassemblies laid side by side: what should stand there and what does.

Lines are aligned by content (address, bytes, text), so that an inserted jump shows as one changed line and not as a
difference in all that follows.
"""

from difflib import SequenceMatcher
from itertools import zip_longest

import msgspec

from hypervigil.core.report import Line

LIMIT = 256
"""Lines of a side that are aligned; alignment takes quadratic time and a reader compares far fewer."""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A line of each side, or None where a side has none; `same` if nothing differs."""

    before: Line | None
    after: Line | None
    same: bool


def side_by_side(before: tuple[Line, ...], after: tuple[Line, ...], *, limit: int = LIMIT) -> list[Pair]:
    """The first `limit` lines of both sides in order, equal lines in one pair."""
    old, new = before[:limit], after[:limit]
    pairs: list[Pair] = []
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        pairs += [
            Pair(before=left, after=right, same=kind == "equal") for left, right in zip_longest(old[a:b], new[c:d])
        ]
    return pairs
