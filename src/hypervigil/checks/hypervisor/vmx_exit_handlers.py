"""Every exit of an Intel guest is handled by a function of KVM."""

from collections.abc import Iterator

from hypervigil.checks.targets import each_misdirected
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.hypervisor import VmxExitHandlers


@check("KVM-007")
def vmx_exit_handlers(table: VmxExitHandlers) -> Iterator[Violation]:
    """Judge ``kvm_vmx_exit_handlers`` slot by slot."""
    yield from each_misdirected(table.slots, ("kvm", "kvm_amd", "kvm_intel"))
