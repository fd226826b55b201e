"""Each KVM operation is the start of a function of KVM or of its processor back end."""

from collections.abc import Iterator

from hypervigil.checks.targets import each_misdirected
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.hypervisor import KvmDispatch


@check("KVM-002")
def operations_exact(dispatch: KvmDispatch) -> Iterator[Violation]:
    """Judge the slots of ``kvm_x86_ops`` by owner, section and exactness."""
    slots = [operation.operation for operation in dispatch.operations]
    yield from each_misdirected(slots, {"kvm", dispatch.vendor, "kernel"})
