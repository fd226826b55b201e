"""Text of the kernel and its modules is what the vendor shipped, but for lawful patches."""

from collections.abc import Iterator

from hypervigil.checks.code import each_deviation
from hypervigil.core.check import check
from hypervigil.core.finding import Observation, Violation
from hypervigil.facts.kernel import VendorText


@check("KRN-010")
def text_as_shipped(comparison: VendorText) -> Iterator[Violation | Observation]:
    """Report bytes that neither the package nor a lawful patch explains."""
    yield from each_deviation(comparison, code=True)
