"""Every kind of device that KVM can create is served by functions of KVM."""

from collections.abc import Iterator

from hypervigil.checks.targets import each_misdirected
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.hypervisor import KvmDeviceOperations
from hypervigil.facts.pointers import Section


@check("KVM-012")
def device_operations(table: KvmDeviceOperations) -> Iterator[Violation]:
    """Judge ``kvm_device_ops_table`` and the tables it leads to."""
    yield from each_misdirected(
        table.slots,
        ("kernel", "kvm", "kvm_amd", "kvm_intel", "vfio", "kvm_vfio"),
        sections=(Section.TEXT, Section.DATA, Section.RODATA),
    )
