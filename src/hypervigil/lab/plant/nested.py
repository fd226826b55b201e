"""What the hardware is told about a guest: its control block and its nested page tables.

Source: AMD64 Architecture Programmer's Manual volume 2, appendix B "VMCB Layout" and 15.25 "Nested Paging".
"""

import struct
from collections.abc import Iterator

import msgspec

from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.machine import Machine
from hypervigil.lab.plant.change import put, put_pointer
from hypervigil.lab.plant.heap import direct
from hypervigil.lab.truth import Planted

_INTERCEPTS, _ASID, _NESTED, _NESTED_CR3, _RIP = 0x0C, 0x58, 0x90, 0xB0, 0x578
_CPUID = 1 << 18
_CODE, _CODE_END = 0x1000, 0x1080
_SPARE = 0x9000
_FRAME = 0x000F_FFFF_FFFF_F000
_WRITABLE = 2
_SOFTWARE = 0x7FF0_0000_0000_0000


class Vmcb(msgspec.Struct, frozen=True):
    """A guest's control block in RAM, and the root of its nested page tables."""

    address: PhysAddr
    root: PhysAddr


def each_vmcb(machine: Machine) -> Iterator[Vmcb]:
    """The control blocks of the range's own guests, told by where their instruction pointer must be."""
    memory = machine.memory
    for page in range(0, memory.size, PAGE_SIZE):
        content = memory.page(page)
        (rip,) = struct.unpack_from("<Q", content, _RIP)
        (root,) = struct.unpack_from("<Q", content, _NESTED_CR3)
        (asid,) = struct.unpack_from("<I", content, _ASID)
        if not (_CODE <= rip < _CODE_END and content[_NESTED] & 1 and asid and root % PAGE_SIZE == 0):
            continue
        if 0 < root < memory.size and _leaf(machine, PhysAddr(root), _CODE) is not None:
            yield Vmcb(PhysAddr(page), PhysAddr(root))


def _leaf(machine: Machine, root: PhysAddr, guest: int) -> PhysAddr | None:
    """Where the last-level entry for a guest-physical address is, if all levels above are there."""
    table = int(root)
    for level in range(machine.memory.levels - 1, 0, -1):
        where = table + 8 * ((guest >> (12 + 9 * level)) & 0x1FF)
        (value,) = struct.unpack("<Q", machine.memory.physical(PhysAddr(where), 8))
        table = value & _FRAME
        if not value & 1 or table >= machine.memory.size:
            return None
    return PhysAddr(table + 8 * ((guest >> 12) & 0x1FF))


def _entry(machine: Machine, vmcb: Vmcb, guest: int) -> tuple[PhysAddr, int]:
    where = _leaf(machine, vmcb.root, guest)
    if where is None:
        raise NotApplicable("the guest has no nested page tables")
    (value,) = struct.unpack("<Q", machine.memory.physical(where, 8))
    return where, value


def _guests(machine: Machine, count: int) -> list[Vmcb]:
    found = list({vmcb.root: vmcb for vmcb in each_vmcb(machine)}.values())
    if len(found) < count:
        raise NotApplicable(f"{len(found)} guests with nested paging run, {count} are needed")
    return found


def _map(machine: Machine, vmcb: Vmcb, what: str, frame: int) -> Planted:
    _, template = _entry(machine, vmcb, _CODE)
    where, old = _entry(machine, vmcb, _SPARE)
    if old & 1:
        raise NotApplicable("the guest uses the page that was to be mapped")
    value = template & ~_FRAME & ~_WRITABLE & ~_SOFTWARE | frame
    change = put_pointer(machine, f"nested page table entry of {_SPARE:#x}: {what}", direct(machine, where), value)
    return Planted(
        (change,), values={"vmcb": vmcb.address, "root": vmcb.root, "frame": frame, "guest_physical": _SPARE}
    )


def maps_kernel(machine: Machine) -> Planted:
    """Lets a guest read the first page of the host kernel's code."""
    frame = machine.memory.translate(machine.symbols.find("_stext").address) & ~(PAGE_SIZE - 1)
    return _map(machine, _guests(machine, 1)[0], "the host kernel's code", frame)


def maps_neighbour(machine: Machine) -> Planted:
    """Lets a guest read a page of another guest."""
    first, second = _guests(machine, 2)[:2]
    _, value = _entry(machine, second, _CODE)
    return _map(machine, first, "another guest's page", value & _FRAME)


def no_cpuid_intercept(machine: Machine) -> Planted:
    """Clears the bit of a guest's control block by which the host is asked about CPUID."""
    vmcb = _guests(machine, 1)[0]
    address = VirtAddr(direct(machine, vmcb.address) + _INTERCEPTS)
    (old,) = struct.unpack("<I", machine.memory.read(address, 4))
    if not old & _CPUID:
        raise NotApplicable("CPUID is not intercepted")
    change = put(machine, "vmcb.control.intercepts CPUID", address, struct.pack("<I", old & ~_CPUID))
    return Planted((change,), values={"vmcb": vmcb.address})
