"""Outside evidence: what the user gave to compare a kernel with."""

from typing import Protocol


class Reference(Protocol):
    """A vendor's package or a vmlinux, opened.

    Attributes:
        name: how to cite it.
    """

    name: str
