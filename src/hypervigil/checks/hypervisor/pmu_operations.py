"""Every operation of the virtual performance counters lands at the start of one of KVM's own functions."""

from collections.abc import Iterator

from hypervigil.checks.targets import each_misdirected
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.hypervisor import KvmPmuOperations
from hypervigil.facts.pointers import Section


@check("KVM-004")
def pmu_operations(table: KvmPmuOperations) -> Iterator[Violation]:
    """Judge ``kvm_pmu_ops`` slot by slot."""
    yield from each_misdirected(
        table.slots, ("kvm", "kvm_amd", "kvm_intel"), sections=(Section.TEXT, Section.RODATA, Section.DATA)
    )
