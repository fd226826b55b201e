"""Every exit of an AMD guest is handled by a function of KVM."""

from collections.abc import Iterator

from hypervigil.checks.targets import each_misdirected
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.hypervisor import SvmExitHandlers


@check("KVM-006")
def svm_exit_handlers(table: SvmExitHandlers) -> Iterator[Violation]:
    """Judge ``svm_exit_handlers`` slot by slot."""
    yield from each_misdirected(table.slots, ("kvm", "kvm_amd", "kvm_intel"))
