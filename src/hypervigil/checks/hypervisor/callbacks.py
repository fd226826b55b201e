"""The hooks that KVM hands to the kernel lead back into KVM."""

from collections.abc import Iterator

from hypervigil.checks.targets import each_misdirected
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.hypervisor import KvmCallbacks
from hypervigil.facts.pointers import Section


@check("KVM-014")
def callbacks(table: KvmCallbacks) -> Iterator[Violation]:
    """Judge preemption, MMU notifier, perf and clock hooks."""
    yield from each_misdirected(
        table.slots, ("kernel", "kvm", "kvm_amd", "kvm_intel"), sections=(Section.TEXT, Section.DATA, Section.RODATA)
    )
