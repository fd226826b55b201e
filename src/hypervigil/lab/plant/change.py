"""What a planter did, with the bytes before and after as the host itself sees them."""

import struct

import msgspec

from hypervigil.core.errors import UsageError
from hypervigil.core.units import VirtAddr
from hypervigil.lab.machine import Machine


class NotApplicable(UsageError):
    """The scenario has no place on this kernel; the message says what the kernel lacks."""


class Change(msgspec.Struct, frozen=True):
    """One run of bytes that was changed.

    Attributes:
        object: what it is, in the kernel's terms ("kvm_x86_ops.handle_exit").
        address: kernel virtual address of the first byte.
        before: the bytes as hex, read inside the host through /proc/kcore before planting.
        after: the same after planting.
    """

    object: str
    address: VirtAddr
    before: str
    after: str


class Planted(msgspec.Struct, frozen=True):
    """The truth about one planting.

    Attributes:
        changes: the bytes that are the tampering; the stub's own bytes come last.
        stub: where the harmless code was put, if any was.
        values: further addresses and numbers by name ("original": where calls went before).
    """

    changes: tuple[Change, ...]
    stub: VirtAddr | None = None
    values: dict[str, int] = {}  # noqa: RUF012 - msgspec copies an empty default


def put(machine: Machine, name: str, address: VirtAddr, data: bytes) -> Change:
    """Writes `data` and reads it back inside the host.

    Raises:
        UsageError: the host does not see the bytes that were written.
    """
    before = machine.peek(address, len(data))
    machine.memory.write(address, data)
    after = machine.peek(address, len(data))
    if after != data:
        raise UsageError(f"{name} at {address:#x}: wrote {data.hex()}, the host reads {after.hex()}")
    return Change(name, address, before.hex(), after.hex())


def put_pointer(machine: Machine, name: str, address: VirtAddr, value: int) -> Change:
    """Writes a 64-bit value and reads it back inside the host."""
    return put(machine, name, address, struct.pack("<Q", value))
