"""Every place where the kernel patches its own text holds a value that it may hold."""

from collections.abc import Iterator

from hypervigil.checks.code import each_deviation
from hypervigil.core.check import check
from hypervigil.core.finding import Observation, Violation
from hypervigil.facts.kernel import TextSites


@check("KRN-009")
def text_sites_legal(comparison: TextSites) -> Iterator[Violation | Observation]:
    """Report sites with an illegal value, and name those that tracers lawfully use."""
    yield from each_deviation(comparison, code=True)
