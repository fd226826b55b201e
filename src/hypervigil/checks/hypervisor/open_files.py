"""Every open file of KVM uses one of KVM's own tables."""

from collections.abc import Iterator

from hypervigil.checks.targets import each_misdirected
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.hypervisor import KvmOpenFiles
from hypervigil.facts.pointers import Section


@check("KVM-009")
def open_files(table: KvmOpenFiles) -> Iterator[Violation]:
    """Judge ``f_op`` of every open KVM file."""
    yield from each_misdirected(table.slots, ("kvm", "kvm_amd", "kvm_intel"), sections=(Section.DATA, Section.RODATA))
