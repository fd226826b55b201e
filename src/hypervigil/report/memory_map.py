"""Where things lie in memory, laid out for a picture: order is kept, scale is not.

A kernel's half of the address space is 128 TiB with a few hundred executable stretches in it: drawn to scale it is one
empty line. So regions flow like words of a text, each as wide as the logarithm of its size and no narrower than its
owner's name; a distance of a gibibyte or more starts a new line, and every line names the address it starts at.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from math import ceil

import msgspec

from hypervigil.core.report import Region
from hypervigil.core.units import PAGE_SIZE

WIDTH = 960
"""Width of the picture in its own units."""

LINES = 32
"""Lines that are drawn; regions beyond them are counted."""

_APART = 1 << 30
_LINE_HEIGHT = 56
_FIRST_LINE = 18
_NARROWEST = 14
_PER_DOUBLING = 9
_SPACE = 3
_LETTER = 6.8
_LONGEST_NAME = 24
_SWATCHES = 8


class Block(msgspec.Struct, frozen=True):
    """A region in the picture: its left upper corner, width, label (empty if it does not fit) and look.

    Attributes:
        swatch: number of its kind's colour.
        marked: whether a violation lies in it.
        starts_line: whether its address is written above it.
    """

    x: int
    y: int
    width: int
    label: str
    region: Region
    swatch: int
    marked: bool
    starts_line: bool


class Picture(msgspec.Struct, frozen=True):
    """The whole picture, with what is not in it.

    Attributes:
        kinds: the kinds of region in the order of their swatches.
        hidden: regions beyond the last line.
        outside: violation addresses that lie in no region.
    """

    width: int
    height: int
    blocks: tuple[Block, ...]
    kinds: tuple[tuple[str, int], ...]
    hidden: int
    outside: int


def draw(regions: Iterable[Region], addresses: Iterable[int]) -> Picture:
    """Lay out `regions` and mark those that hold one of the virtual `addresses`."""
    ordered = sorted(regions, key=lambda r: (r.start, r.end, r.owner))
    kinds = {kind: number % _SWATCHES for number, kind in enumerate(sorted({r.kind for r in ordered}))}
    wanted = sorted(set(addresses))
    marked = {a for region in ordered for a in _within(wanted, region)}
    blocks = tuple(_flow(ordered, kinds, marked))
    return Picture(
        width=WIDTH,
        height=max((block.y for block in blocks), default=0) + _LINE_HEIGHT - _FIRST_LINE,
        blocks=blocks,
        kinds=tuple(kinds.items()),
        hidden=len(ordered) - len(blocks),
        outside=len(wanted) - len(marked),
    )


def _flow(regions: list[Region], kinds: dict[str, int], marked: set[int]) -> Iterator[Block]:
    x, line, last = 0, 0, None
    addresses = sorted(marked)
    for region in regions:
        width = _width(region)
        breaks = last is not None and region.start - last >= _APART
        if x and (breaks or x + width > WIDTH):
            x, line = 0, line + 1
        if line >= LINES:
            return
        yield Block(
            x=x,
            y=_FIRST_LINE + line * _LINE_HEIGHT,
            width=width,
            label=_label(region, width),
            region=region,
            swatch=kinds[region.kind],
            marked=bool(_within(addresses, region)),
            starts_line=x == 0,
        )
        x, last = x + width + _SPACE, max(region.end, last or 0)


def _within(addresses: list[int], region: Region) -> list[int]:
    return addresses[bisect_left(addresses, region.start) : bisect_left(addresses, region.end)]


def _width(region: Region) -> int:
    pages = max(region.end - region.start, 0) // PAGE_SIZE
    name = _name(region)
    room = _room(name) if len(name) <= _LONGEST_NAME else 0
    return min(max(_NARROWEST + _PER_DOUBLING * pages.bit_length(), room), WIDTH)


def _name(region: Region) -> str:
    return region.owner or "no owner"


def _room(name: str) -> int:
    return ceil(len(name) * _LETTER) + 4 * _SPACE


def _label(region: Region, width: int) -> str:
    """The owner's name if its letters fit; never a part of it, since a cut name can be another module's."""
    name = _name(region)
    return name if _room(name) <= width else ""
