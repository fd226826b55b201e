"""Evidence: the bytes a verdict rests on, and how to find any of them again."""

import msgspec

from hypervigil.core.errors import ProgramError


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One body of bytes that was examined.

    Attributes:
        id: short name, unique within a report; spans refer to it.
        kind: format, such as ``memory/raw`` or ``package/deb``.
        name: file name without its folder: where it lay on our machine is nobody's business.
        size: length in bytes.
        digest: ``ALGORITHM:HEX``; `hypervigil.core.digest` says how an image's is computed.
        acquired: who took it, when and how, as far as it is known; empty if it was handed over.
        chunks: ``(index, hexadecimal digest)`` of each chunk that a finding cites, where the digest is chunked.
        notes: what limits it, such as a truncated segment.
    """

    id: str
    kind: str
    name: str
    size: int
    digest: str = ""
    acquired: str = ""
    chunks: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = ()


class Span(msgspec.Struct, frozen=True, order=True):
    """Half-open byte range ``[start, end)`` of an evidence.

    Raises:
        ProgramError: the range is empty, reversed or negative.
    """

    evidence: str
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ProgramError(f"span {self.start:#x}..{self.end:#x} of {self.evidence} is not a range")

    @property
    def size(self) -> int:
        """Length in bytes, at least 1."""
        return self.end - self.start
