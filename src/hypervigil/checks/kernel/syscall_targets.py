"""Every system call lands at the start of one of the kernel's own system calls."""

from collections.abc import Iterator

from hypervigil.checks.targets import each_misdirected, misdirected
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.kernel import SystemCalls

_MARKS = ("sys_", "__x64_", "__ia32_", "__x32_", "stub_")


@check("KRN-003")
def syscall_targets(table: SystemCalls) -> Iterator[Violation]:
    """Judge each slot by owner and exactness, then by name, then by whether two calls share a function."""
    faulty = set()
    for violation in each_misdirected(table.slots, ("kernel",)):
        faulty.add(violation.address)
        yield violation
    for slot in table.slots:
        names = (slot.target.symbol, *slot.target.aliases)
        if (
            slot.target.address
            and slot.target.placed
            and slot.address not in faulty
            and not any(mark in name for mark in _MARKS for name in names)
        ):
            yield misdirected(slot, f"{slot.name} leads to {slot.target}, which is no system call")
