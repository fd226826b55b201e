"""The three holders of each KVM operation name the same function."""

from collections.abc import Iterator

from hypervigil.core.check import check
from hypervigil.core.finding import CodeRef, Violation
from hypervigil.facts.hypervisor import KvmDispatch
from hypervigil.facts.pointers import Slot


@check("KVM-001")
def operations_agree(dispatch: KvmDispatch) -> Iterator[Violation]:
    """Compare ``kvm_x86_ops``, the static call key and the trampoline of every operation."""
    for operation in dispatch.operations:
        holders = [h for h in (operation.operation, operation.key, operation.trampoline) if h is not None]
        if len({_called(holder) for holder in holders if not _nameless(holder)}) > 1:
            yield _disagreement(operation.name, holders)


def _called(holder: Slot) -> int:
    """What a holder calls: the key of an absent operation that returns 0 holds ``__static_call_return0``."""
    return 0 if holder.target.symbol == "__static_call_return0" else holder.target.address


def _nameless(holder: Slot) -> bool:
    """Whether it leads to a function of the kernel whose name is lost, which may be the one that returns 0."""
    return holder.target.owner == "kernel" and not holder.target.placed


def _disagreement(name: str, holders: list[Slot]) -> Violation:
    odd = _odd_one(holders)
    said = ", ".join(f"{holder.name} leads to {holder.target}" for holder in holders)
    rest = [holder for holder in holders if holder.target.address != odd.target.address]
    others = sorted({str(holder.target) for holder in rest})
    return Violation(
        message=f"the holders of operation {name} disagree: {said}",
        object=odd.name,
        address=odd.address,
        found=str(odd.target),
        expected=" or ".join(others),
        spans=tuple(span for holder in holders for span in holder.span),
        code=(
            CodeRef(title=f"where {odd.name} leads", address=odd.target.address, size=48),
            CodeRef(title=f"where {rest[0].name} leads", address=rest[0].target.address, size=48),
        ),
    )


def _odd_one(holders: list[Slot]) -> Slot:
    """Pick the holder that stands alone against the others, else one that leads to nobody, else the first."""
    addresses = [holder.target.address for holder in holders]
    alone = [holder for holder in holders if addresses.count(holder.target.address) == 1]
    if len(holders) > len(alone) > 0:
        return alone[0]
    return next((h for h in holders if not h.target.owner or h.target.offset), holders[0])
