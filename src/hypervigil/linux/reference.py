"""Outside evidence: what the user gave to compare a kernel with."""

from typing import Protocol

from hypervigil.core.evidence import Evidence


class Reference(Protocol):
    """A vendor's package or a vmlinux, opened.

    Attributes:
        evidence: how it is cited.
    """

    evidence: Evidence
