"""Every device on a machine's I/O buses is served by KVM or VFIO."""

from collections.abc import Iterator

from hypervigil.checks.targets import each_misdirected
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.hypervisor import KvmIoDevices
from hypervigil.facts.pointers import Section


@check("KVM-010")
def io_devices(table: KvmIoDevices) -> Iterator[Violation]:
    """Judge each device's table and the functions in it."""
    yield from each_misdirected(
        table.slots,
        ("kvm", "kvm_amd", "kvm_intel", "vfio", "vfio_pci", "vfio_pci_core"),
        sections=(Section.TEXT, Section.DATA, Section.RODATA),
    )
