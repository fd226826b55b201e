"""Every interrupt gate leads into the kernel's entry code, and only the lawful ones may be called from outside."""

from collections.abc import Iterator

from hypervigil.checks.targets import misdirected, misdirection
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.kernel import Gate, InterruptTable
from hypervigil.facts.pointers import Section, Slot

_CALLABLE = {3: "breakpoint", 4: "overflow", 0x80: "32-bit system call"}
_KERNEL_CODE = 0x10
_ROWS = ("irq_entries_start", "spurious_entries_start")
_STUB = 8
_EARLY_STUBS = (9, 13)
_EXCEPTIONS = 32


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
                object=f"interrupt table of {claim.source}",
                address=claim.address,
                found=claim.value,
                expected=f"{table.address:#x}",
                spans=claim.span,
            )


def _wrong(slot: Slot, gate: Gate) -> str:
    if gate.selector != _KERNEL_CODE:
        return f"loads code segment {gate.selector:#x} instead of {_KERNEL_CODE:#x}"
    if gate.privilege and gate.vector not in _CALLABLE:
        return f"may be called from user mode (privilege {gate.privilege})"
    if _is_stub(slot, gate):
        return ""
    return misdirection(slot, ("kernel",), (Section.TEXT,))


def _is_stub(slot: Slot, gate: Gate) -> bool:
    """Whether a gate leads to one of a row of stubs, which share one symbol.

    Exceptions that the processor does not have keep the gate of early boot, into memory that was freed since.
    """
    target = slot.target
    if target.owner != "kernel":
        return False
    if target.symbol in _ROWS:
        return target.section is Section.TEXT and target.offset % _STUB == 0
    early = {size * gate.vector for size in _EARLY_STUBS}
    return target.symbol == "early_idt_handler_array" and gate.vector < _EXCEPTIONS and target.offset in early
