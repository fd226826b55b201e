"""Text and read-only data against what the vendor shipped."""

from hypervigil.core.facts import Absent, Unknown
from hypervigil.extract.loading import Subject, extracts
from hypervigil.facts.kernel import VendorData, VendorText

_NOT_GIVEN = "no package was given (--package)"
_NOT_READ = "the packages that were given are not compared by this version"


@extracts(VendorText)
def vendor_text(subject: Subject) -> Absent | Unknown:
    """Text against packages."""
    return Unknown(_NOT_READ) if subject.references else Absent(_NOT_GIVEN)


@extracts(VendorData)
def vendor_data(subject: Subject) -> Absent | Unknown:
    """Read-only data against packages."""
    return Unknown(_NOT_READ) if subject.references else Absent(_NOT_GIVEN)
