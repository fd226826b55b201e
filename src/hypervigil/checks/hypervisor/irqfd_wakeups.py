"""Every irqfd wakes a function of KVM."""

from collections.abc import Iterator

from hypervigil.checks.targets import each_misdirected
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.hypervisor import KvmInterruptFds


@check("KVM-011")
def irqfd_wakeups(table: KvmInterruptFds) -> Iterator[Violation]:
    """Judge each irqfd's wake function and those around it."""
    yield from each_misdirected(table.slots, ("kvm", "kvm_amd", "kvm_intel"))
