"""Makes changes to a running host, with the bytes before and after as the host itself sees them."""

import struct
from collections.abc import Sequence

import msgspec

from hypervigil.core.errors import UsageError
from hypervigil.core.units import VirtAddr
from hypervigil.lab.machine import Machine
from hypervigil.lab.truth import Change


class Write(msgspec.Struct, frozen=True):
    """A change to make: what it is, where, and the bytes."""

    object: str
    address: VirtAddr
    data: bytes


def pointer(name: str, address: VirtAddr, value: int) -> Write:
    """The write of a 64-bit value."""
    return Write(name, address, struct.pack("<Q", value))


def put_all(machine: Machine, writes: Sequence[Write]) -> tuple[Change, ...]:
    """Makes several changes at one stop of the machine, and reads each back inside the host.

    Raises:
        UsageError: the host does not see the bytes that were written, or changed them meanwhile.
    """
    before = [machine.peek(write.address, len(write.data)) for write in writes]
    machine.memory.write_all([(w.address, old, w.data) for w, old in zip(writes, before, strict=True)])
    changes = []
    for write, old in zip(writes, before, strict=True):
        after = machine.peek(write.address, len(write.data))
        if after != write.data:
            raise UsageError(
                f"{write.object} at {write.address:#x}: wrote {write.data.hex()}, host reads {after.hex()}"
            )
        if after != old:
            changes.append(Change(write.object, write.address, old.hex(), after.hex()))
    return tuple(changes)


def put(machine: Machine, name: str, address: VirtAddr, data: bytes) -> Change:
    """Makes one change and reads it back inside the host."""
    return put_all(machine, [Write(name, address, data)])[0]


def put_pointer(machine: Machine, name: str, address: VirtAddr, value: int) -> Change:
    """Writes a 64-bit value and reads it back inside the host."""
    return put_all(machine, [pointer(name, address, value)])[0]
