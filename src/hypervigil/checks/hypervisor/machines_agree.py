"""Every view of virtual machines shows the same machines."""

from collections.abc import Iterator

from hypervigil.checks.views import each_hidden
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.hypervisor import KvmMachines


@check("KVM-015")
def machines_agree(views: KvmMachines) -> Iterator[Violation]:
    """Name every machine that some view shows and another, without excuse, does not."""
    yield from each_hidden(views, "machine")
