"""Function pointers in the kernel's and KVM's tables, turned to a stub that passes the call on."""

import struct

from hypervigil.core.units import VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.machine import Machine
from hypervigil.lab.plant.change import put, put_pointer
from hypervigil.lab.plant.stub import direct_pass_through, pass_through
from hypervigil.lab.symbols import Symbol
from hypervigil.lab.truth import Planted

_POINTER = 8
_GATE = 16


def table_slot(
    machine: Machine, *, table: list[str], function: list[str], member: str = "", where: str = "kvm_amd"
) -> Planted:
    """Turns the slot of a table that holds a known function to a stub.

    The slot is found by its value: the function's address, between the table's symbol and the next one.

    Args:
        machine: the host.
        table: names the table's symbol may have.
        function: names the function in the slot may have; the first that is in the table is taken.
        member: what the slot is called, for the truth.
        where: the module whose spare text takes the stub, "" for the kernel's.
    """
    symbol = machine.symbols.find(*table)
    slot, target = slot_of(machine, symbol, function)
    stub = pass_through(machine, target.address, where)
    name = f"{symbol.name}.{member or target.name}"
    change = put_pointer(machine, name, slot, stub.address)
    return Planted((change, stub.change), stub.address, {"original": target.address, "table": symbol.address})


def slot_of(machine: Machine, table: Symbol, functions: list[str]) -> tuple[VirtAddr, Symbol]:
    """Where a table holds one of `functions`, and which.

    Raises:
        NotApplicable: it holds none of them.
    """
    content = machine.memory.read(table.address, machine.symbols.end(table) - table.address)
    for name in functions:
        for target in machine.symbols.named(name):
            at = _aligned(content, struct.pack("<Q", target.address))
            if at is not None:
                return VirtAddr(table.address + at), target
    raise NotApplicable(f"{table.name} has no slot for {' or '.join(functions)}")


def _aligned(content: bytes, pattern: bytes) -> int | None:
    at = content.find(pattern)
    while at >= 0 and at % _POINTER:
        at = content.find(pattern, at + 1)
    return at if at >= 0 else None


def gate_target(gate: bytes) -> int:
    """Where a gate of the interrupt descriptor table leads.

    Source: Intel SDM volume 3, 6.14.1 "64-Bit Mode IDT": the offset is split over bytes 0-1, 6-7 and 8-11.
    """
    return int.from_bytes(gate[0:2] + gate[6:8] + gate[8:12], "little")


def turned_gate(gate: bytes, target: int) -> bytes:
    """The same gate with another target."""
    offset = struct.pack("<Q", target)
    return offset[0:2] + gate[2:6] + offset[2:4] + offset[4:8] + gate[12:]


def idt_gate(machine: Machine, *, vector: int, handler: list[str], where: str = "") -> Planted:
    """Turns a gate of the interrupt descriptor table to a stub."""
    place = VirtAddr(machine.symbols.find("idt_table").address + vector * _GATE)
    gate = machine.memory.read(place, _GATE)
    target = gate_target(gate)
    if target != machine.symbols.find(*handler).address:
        raise NotApplicable(f"gate {vector} leads to {target:#x}, not to {handler[0]}")
    stub = direct_pass_through(machine, target, where)
    change = put(machine, f"idt_table[{vector}]", place, turned_gate(gate, stub.address))
    return Planted((change, stub.change), stub.address, {"original": target})
