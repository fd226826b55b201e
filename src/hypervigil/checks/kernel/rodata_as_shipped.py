"""Read-only data of the kernel and its modules is what the vendor shipped."""

from collections.abc import Iterator

from hypervigil.checks.code import each_deviation
from hypervigil.core.check import check
from hypervigil.core.finding import Observation, Violation
from hypervigil.facts.kernel import VendorData


@check("KRN-011")
def rodata_as_shipped(comparison: VendorData) -> Iterator[Violation | Observation]:
    """Report bytes that differ from the package after relocation."""
    yield from each_deviation(comparison, code=False)
