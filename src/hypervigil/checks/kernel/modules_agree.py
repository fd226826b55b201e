"""Every view of kernel modules shows the same modules."""

from collections.abc import Iterator

from hypervigil.checks.views import each_hidden
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.kernel import Modules


@check("KRN-012")
def modules_agree(views: Modules) -> Iterator[Violation]:
    """Name every module that some view shows and another, without excuse, does not."""
    yield from each_hidden(views, "module")
