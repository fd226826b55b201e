"""Every device created for a machine uses one of KVM's own tables."""

from collections.abc import Iterator

from hypervigil.checks.targets import each_misdirected
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.hypervisor import KvmDevices
from hypervigil.facts.pointers import Section


@check("KVM-013")
def created_devices(table: KvmDevices) -> Iterator[Violation]:
    """Judge ``ops`` of each created device."""
    yield from each_misdirected(
        table.slots,
        ("kernel", "kvm", "kvm_amd", "kvm_intel", "vfio", "kvm_vfio"),
        sections=(Section.DATA, Section.RODATA),
    )
