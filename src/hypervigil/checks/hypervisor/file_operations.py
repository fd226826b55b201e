"""The file operations of /dev/kvm, machines and processors land at the start of functions of KVM or the kernel."""

from collections.abc import Iterator

from hypervigil.checks.targets import each_misdirected
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.hypervisor import KvmFileOperations


@check("KVM-008")
def file_operations(table: KvmFileOperations) -> Iterator[Violation]:
    """Judge the tables behind KVM's files slot by slot."""
    yield from each_misdirected(table.slots, ("kernel", "kvm", "kvm_amd", "kvm_intel"))
