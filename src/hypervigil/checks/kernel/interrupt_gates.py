"""Every interrupt gate leads into the kernel's entry code, and only the lawful ones may be called from outside."""

from collections.abc import Iterator

from hypervigil.checks.targets import misdirected, misdirection
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.kernel import Gate, InterruptTable
from hypervigil.facts.pointers import Section, Slot

_CALLABLE = {3: "breakpoint", 4: "overflow", 0x80: "32-bit system call"}
_KERNEL_CODE = 0x10
_ENTRY_SIZES = ("irq_entries_start", "spurious_entries_start", "early_idt_handler_array")


@check("KRN-004")
def interrupt_gates(table: InterruptTable) -> Iterator[Violation]:
    """Judge each gate by owner, exactness, privilege and selector; then which tables are in use."""
    for slot, gate in zip(table.slots, table.gates, strict=True):
        if slot.target.address and (why := _wrong(slot, gate)):
            yield misdirected(slot, f"{slot.name} {why}")
    for claim in table.in_use:
        if claim.value != f"{table.address:#x}":
            yield Violation(
                message=f"{claim.source} uses an interrupt table at {claim.value}, not at {table.address:#x}",
                object=claim.source,
                found=claim.value,
                expected=f"{table.address:#x}",
                spans=claim.span,
            )


def _wrong(slot: Slot, gate: Gate) -> str:
    if gate.selector != _KERNEL_CODE:
        return f"loads code segment {gate.selector:#x} instead of {_KERNEL_CODE:#x}"
    if gate.privilege and gate.vector not in _CALLABLE:
        return f"may be called from user mode (privilege {gate.privilege})"
    why = misdirection(slot, ("kernel",), (Section.TEXT,))
    if why and slot.target.owner == "kernel" and slot.target.symbol in _ENTRY_SIZES and slot.target.offset % 8 == 0:
        return ""
    return why
