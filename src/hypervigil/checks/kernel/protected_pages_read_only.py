"""Text and read-only data are mapped read-only."""

from collections.abc import Iterator

from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.kernel import MemoryProtection


@check("KRN-007")
def protected_pages_read_only(protection: MemoryProtection) -> Iterator[Violation]:
    """Report writable pages in ranges that the kernel protects."""
    for area in protection.ranges:
        for address, span in area.writable:
            yield Violation(
                message=f"a page of {area.name} at {address:#x} is writable",
                object=area.name,
                address=address,
                found="writable",
                expected="read-only",
                spans=span,
            )
