"""Code and read-only data compared with what they may be."""

import msgspec

from hypervigil.core.evidence import Span
from hypervigil.core.facts import Fact, require


class SiteCount(msgspec.Struct, frozen=True, order=True):
    """How many patch sites of a kind stand in a state, such as 7,900 ftrace sites in state ``nop``."""

    kind: str
    state: str
    count: int


class Deviation(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that differ from every value they may have.

    Attributes:
        kind: the site table they belong to, or ``text``/``rodata`` outside of any.
        address: virtual address of the first differing byte.
        size: how many bytes the site or the difference has.
        symbol: the function or object they lie in, with offset.
        found: the bytes, hexadecimal.
        expected: legal values, hexadecimal, the first one being the likeliest; empty if only words can say it.
        legal: what would be legal, in words.
        owner: the registered user that explains it (a kprobe, a tracer); empty if nobody does.
    """

    kind: str
    address: int
    size: int
    symbol: str
    found: str
    legal: str
    span: tuple[Span, ...]
    expected: tuple[str, ...] = ()
    owner: str = ""


class CodeImage(msgspec.Struct, frozen=True, kw_only=True):
    """One object (the kernel, a module) that was compared.

    Attributes:
        name: ``kernel`` or the module's name.
        reference: what it was compared with.
        compared: how many bytes.
        sites: patch sites by kind and state.
        deviations: what no legal value explains.
    """

    name: str
    reference: str
    compared: int
    sites: tuple[SiteCount, ...] = ()
    deviations: tuple[Deviation, ...] = ()


class CodeComparison(Fact, kw_only=True, frozen=True):
    """Comparisons of one kind over all objects it applies to.

    Attributes:
        images: what was compared.
        unused: files that were given and have nothing to compare with.

    Raises:
        ImpossibleFact: nothing was compared.
    """

    images: tuple[CodeImage, ...]
    unused: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.gaps or sum(image.compared for image in self.images), f"{type(self).__name__} compared nothing")
