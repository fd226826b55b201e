"""Every error that Hypervigil raises, in one tree.

::

    HypervigilError
    |-- ProgramError         ours: a bug, a check that does not import
    |-- UsageError           the user's: an argument, a missing package, no permission   (exit status 2)
    `-- EvidenceError        the evidence's: what we were given does not show what was asked
        |-- UnsupportedEvidence   another architecture, system or format, refused by name (exit status 2)
        |-- DecodeError           bytes that are not what their format says
        |-- MissingDescription    a symbol, type or member that nothing in the evidence describes
        `-- MissingMemory         an address that the evidence does not hold

An `EvidenceError` becomes `Unknown` in `hypervigil.extract` and nowhere else.
Messages are lower case, name the input and say what to do next.
"""


class HypervigilError(Exception):
    """The root of the tree; catching it catches all that Hypervigil raises on purpose."""


class ProgramError(HypervigilError):
    """A mistake in Hypervigil itself."""


class UsageError(HypervigilError):
    """A mistake that the user can mend."""


class EvidenceError(HypervigilError):
    """The evidence does not show what was asked of it."""


class UnsupportedEvidence(EvidenceError):
    """Evidence of an architecture, system or format that Hypervigil does not read."""


class DecodeError(EvidenceError):
    """Bytes that do not decode as their format.

    Attributes:
        what: the structure that was being decoded.
        offset: the byte offset of the fault in the buffer that was handed to the decoder, if known.
    """

    def __init__(self, what: str, reason: str, offset: int | None = None) -> None:
        self.what = what
        self.reason = reason
        self.offset = offset
        where = "" if offset is None else f" at byte {offset:#x}"
        super().__init__(f"{what}{where}: {reason}")


class MissingDescription(EvidenceError):
    """A symbol, type or member that is needed and that no description in the evidence has."""


class MissingMemory(EvidenceError):
    """An address range that the evidence does not hold.

    Attributes:
        address: the first missing address, physical unless `virtual`.
        size: how many bytes were asked for.
        virtual: whether `address` is a virtual address.
    """

    def __init__(self, address: int, size: int, why: str = "not in the image", *, virtual: bool = False) -> None:
        self.address = address
        self.size = size
        self.why = why
        self.virtual = virtual
        kind = "virtual" if virtual else "physical"
        super().__init__(f"{kind} {address:#x}, {size} bytes: {why}")
