"""System call tables and the interrupt descriptor table."""

from collections.abc import Iterator

import numpy as np

from hypervigil.core.errors import MissingDescription, MissingMemory
from hypervigil.core.evidence import Span
from hypervigil.core.facts import Gap
from hypervigil.core.units import VirtAddr
from hypervigil.extract.loading import Subject, extracts
from hypervigil.facts.kernel import Claim, Gate, InterruptTable, SystemCalls
from hypervigil.facts.pointers import Slot
from hypervigil.linux.processors import host_processors
from hypervigil.linux.system import System
from hypervigil.standards.syscalls import entry_points

_TABLES = ("sys_call_table", "ia32_sys_call_table", "x32_sys_call_table")
_NOT_IMPLEMENTED = ("__x64_sys_ni_syscall", "__do_sys_ni_syscall", "sys_ni_syscall")
_MAX_CALLS = 1024
_GATES = 256
_GATE = np.dtype(
    [("low", "<u2"), ("selector", "<u2"), ("bits", "<u2"), ("middle", "<u2"), ("high", "<u4"), ("reserved", "<u4")]
)


@extracts(SystemCalls)
def system_calls(subject: Subject) -> SystemCalls:
    """Read every system call table that this kernel has, from its symbol to the next."""
    system = subject.system
    system.kernel.symbols.address("sys_call_table")
    slots: list[Slot] = []
    gaps: list[Gap] = []
    for name in _TABLES:
        if name in system.kernel.symbols:
            for part in _table(system, name):
                (slots if isinstance(part, Slot) else gaps).append(part)  # type: ignore[arg-type] # by its own kind
    return SystemCalls(slots=tuple(slots), gaps=tuple(gaps))


def _table(system: System, name: str) -> Iterator[Slot | Gap]:
    start = system.kernel.symbols.address(name)
    end = system.kernel.symbols.end_of(name)
    size = 0 if end is None else min(end - start, 8 * _MAX_CALLS) & ~7
    if not size:
        raise MissingDescription(f"the end of {name} is not known")
    known = entry_points() if name == "sys_call_table" else {}
    for at, length, data in system.kernel.space.each_piece(start, size):
        first = (at - start) // 8
        if data is None:
            yield Gap(f"{name}[{first}..{first + length // 8 - 1}]", "not in the image")
            continue
        for index, value in enumerate(np.frombuffer(data, "<u8").tolist(), first):
            entry = known.get(index)
            wanted = () if entry is None else (f"__x64_sys_{entry}", *_NOT_IMPLEMENTED)
            yield system.slot(f"{name}[{index}]", start + 8 * index, value, wanted)


@extracts(InterruptTable)
def interrupt_table(subject: Subject) -> InterruptTable:
    """Read ``idt_table``, and see that the table in use is the same memory.

    Processors load ``idt_descr``, which points to a read-only alias of the table in the CPU entry area.
    """
    system = subject.system
    start = system.kernel.symbols.address("idt_table")
    gates = np.frombuffer(system.kernel.space.read(start, _GATES * _GATE.itemsize), _GATE)
    targets = gates["low"].astype(np.uint64) | gates["middle"].astype(np.uint64) << np.uint64(16)
    targets |= gates["high"].astype(np.uint64) << np.uint64(32)
    place = system.kernel.space.physical(start)
    claims, gaps = _in_use(system)
    return InterruptTable(
        slots=tuple(
            system.slot(f"idt_table[{vector}]", start + vector * _GATE.itemsize, value)
            for vector, value in enumerate(targets.tolist())
        ),
        gates=tuple(
            Gate(vector=vector, privilege=bits >> 13 & 3, selector=selector)
            for vector, (bits, selector) in enumerate(
                zip(gates["bits"].tolist(), gates["selector"].tolist(), strict=True)
            )
        ),
        address=place,
        in_use=claims,
        gaps=gaps,
    )


def _in_use(system: System) -> tuple[tuple[Claim, ...], tuple[Gap, ...]]:
    """Physical addresses of the tables that ``idt_descr`` and the processors' registers name."""
    claims: list[Claim] = []
    gaps: list[Gap] = []
    symbol = system.kernel.symbols.address("idt_descr")
    base = VirtAddr(symbol + 2)
    sources = [("idt_descr", system.kernel.space.u64(base), system.spans(base, 8))]
    running = {cpu for cpu, _ in host_processors(system.kernel)}
    sources += [
        (f"IDTR of CPU {state.cpu}", state.idt.base, sources[0][2])
        for state in system.kernel.memory.registers
        if state.idt is not None and state.cpu in running
    ]
    for source, address, span in sources:
        try:
            place = system.kernel.space.physical(VirtAddr(address))
        except MissingMemory as fault:
            gaps.append(Gap(f"interrupt table of {source} at {address:#x}", str(fault)))
            continue
        spans = (*span, *_whole_table(system, address))
        claims.append(Claim(source=source, value=f"{place:#x}", span=spans, address=address))
    return tuple(claims), tuple(gaps)


def _whole_table(system: System, address: int) -> tuple[Span, ...]:
    """The bytes of a table in use, beside what names it."""
    try:
        return system.spans(address, _GATES * _GATE.itemsize)
    except MissingMemory:
        return ()
