"""Every view of processes shows the same processes."""

from collections.abc import Iterator

from hypervigil.checks.views import each_hidden
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.kernel import Tasks


@check("KRN-013")
def tasks_agree(views: Tasks) -> Iterator[Violation]:
    """Name every process that some view shows and another, without excuse, does not."""
    yield from each_hidden(views, "process")
