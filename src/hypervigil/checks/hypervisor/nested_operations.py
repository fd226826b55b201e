"""Every operation for nested guests lands at the start of one of KVM's own functions."""

from collections.abc import Iterator

from hypervigil.checks.targets import each_misdirected
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.hypervisor import KvmNestedOperations
from hypervigil.facts.pointers import Section


@check("KVM-003")
def nested_operations(table: KvmNestedOperations) -> Iterator[Violation]:
    """Judge ``kvm_x86_ops.nested_ops`` slot by slot."""
    yield from each_misdirected(
        table.slots, ("kvm", "kvm_amd", "kvm_intel"), sections=(Section.TEXT, Section.RODATA, Section.DATA)
    )
