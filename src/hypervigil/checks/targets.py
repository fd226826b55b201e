"""The rule that all tables of functions share: a slot leads to the exact start of a function of a rightful owner."""

from collections.abc import Collection, Iterable, Iterator

from hypervigil.core.finding import CodeRef, Violation
from hypervigil.facts.pointers import Section, Slot

_SHOWN = 48


def each_misdirected(
    slots: Iterable[Slot],
    owners: Collection[str],
    *,
    sections: Collection[Section] = (Section.TEXT,),
    prefix: str = "",
) -> Iterator[Violation]:
    """Yield a violation for every set slot that does not lead where such a slot must.

    Args:
        slots: the slots to judge; empty slots are skipped, since an absent operation is legal.
        owners: who may own the target: ``kernel`` and module names.
        sections: where the target may lie.
        prefix: words put before each message.
    """
    for slot in slots:
        if slot.target.address and (why := misdirection(slot, owners, sections)):
            yield misdirected(slot, f"{prefix}{slot.name} {why}")


def misdirection(slot: Slot, owners: Collection[str], sections: Collection[Section]) -> str:
    """Say in words what is wrong with where `slot` leads; empty if nothing is."""
    target = slot.target
    if not target.placed:
        return ""
    if not target.owner:
        return f"leads to {target.address:#x}, which belongs to nobody"
    if target.owner not in owners:
        return f"leads to {target}, owned by {target.owner}; only {', '.join(sorted(owners))} may be there"
    if target.section not in sections:
        return f"leads to {target} in {target.section or 'no section'}, not in {' or '.join(sections)}"
    if not target.symbol:
        return f"leads to {target}, where no function is: it is not the start of anything"
    if target.offset:
        return f"leads to {target}, which is not the start of anything"
    if slot.wanted and not {target.symbol, *target.aliases} & set(slot.wanted):
        return f"leads to {target} instead of {' or '.join(slot.wanted)}"
    return ""


def misdirected(slot: Slot, message: str) -> Violation:
    """Build the violation for one slot: what stands there, what should, and the code it leads to."""
    code: tuple[CodeRef, ...] = ()
    if slot.target.section in {Section.TEXT, Section.NOWHERE}:
        code = (CodeRef(title=f"where {slot.name} leads", address=slot.target.address, size=_SHOWN),)
    return Violation(
        message=message,
        object=slot.name,
        address=slot.address,
        found=str(slot.target),
        expected=" or ".join(slot.wanted) or "the exact start of a function of its owner",
        spans=slot.span,
        code=(CodeRef(title=f"the slot {slot.name}", address=slot.address, size=8, code=False), *code),
    )
