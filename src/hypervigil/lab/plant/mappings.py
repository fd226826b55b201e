"""Kernel addresses that lead to other memory than they should, while that memory itself is untouched.

Source: Intel SDM volume 3, 4.5; arch/x86/include/asm/cpu_entry_area.h (`CPU_ENTRY_AREA_RO_IDT`).
"""

import struct

from hypervigil.core.errors import UsageError
from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.lab.encoding import same_meaning
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.machine import Machine
from hypervigil.lab.plant.change import put, put_pointer
from hypervigil.lab.plant.heap import direct
from hypervigil.lab.plant.pointers import gate_target, turned_gate
from hypervigil.lab.plant.stub import direct_pass_through
from hypervigil.lab.plant.tasks import task_of
from hypervigil.lab.truth import Change, Planted

_FRAME = 0x000F_FFFF_FFFF_F000
_LARGE = 1 << 7
_GLOBAL = 1 << 8
_LARGE_PAT = 1 << 12
_LARGE_SIZE = 1 << 21
_ENTRIES = 512
_ENTRY_AREA_IDT = VirtAddr(0xFFFF_FE00_0000_0000)
_GATE = 16


def parked(machine: Machine, count: int) -> list[PhysAddr]:
    """Whole page frames that a process of the range keeps in place."""
    frames = [PhysAddr(int(line, 16) * PAGE_SIZE) for line in machine.text(f"park {count}").split()]
    if len(frames) != count or not all(0 < frame < machine.memory.size for frame in frames):
        raise UsageError("the host does not say which page frames were kept")
    return frames


def entry_area_idt(machine: Machine, *, vector: int, handler: list[str]) -> Planted:
    """Maps a copy of the interrupt table, with one gate turned to a stub, where processors look for it.

    `idt_table` itself stays as it was.
    """
    old = machine.memory.read(_ENTRY_AREA_IDT, PAGE_SIZE)
    if old != machine.memory.read(machine.symbols.find("idt_table").address, PAGE_SIZE):
        raise NotApplicable("processors use another interrupt table")
    gate = old[vector * _GATE : (vector + 1) * _GATE]
    target = gate_target(gate)
    if target != machine.symbols.find(*handler).address:
        raise NotApplicable(f"gate {vector} leads to {target:#x}, not to {handler[0]}")
    stub = direct_pass_through(machine, target)
    (frame,) = parked(machine, 1)
    copy = bytearray(old)
    copy[vector * _GATE : (vector + 1) * _GATE] = turned_gate(gate, stub.address)
    copied = put(machine, "copy of idt_table", direct(machine, frame), bytes(copy))
    where, value, _ = machine.memory.entry(_ENTRY_AREA_IDT)
    name = "page table entry of the interrupt table in the entry area"
    change = put_pointer(machine, name, direct(machine, where), value & ~_FRAME | frame)
    values = {"copy": int(frame), "entry_area": int(_ENTRY_AREA_IDT), "original": int(target)}
    return Planted((change, _short(copied, vector * _GATE, _GATE), stub.change), stub.address, values)


def private_text(machine: Machine, *, function: list[str], process: str) -> Planted:
    """Gives one process page tables of its own for KVM's code, in which one instruction is written in another way.

    All other processes, and the kernel's own top table, still see the code as it was.
    """
    symbol = machine.symbols.find(*function)
    code = machine.memory.read(symbol.address, machine.symbols.end(symbol) - symbol.address)
    found = same_meaning(code, 0)
    if found is None:
        raise NotApplicable(f"{symbol.name} has no move between registers")
    place = VirtAddr(symbol.address + found[0])
    if place % PAGE_SIZE + len(found[1]) > PAGE_SIZE:
        raise NotApplicable("the instruction lies on two pages")
    frames = parked(machine, machine.memory.levels)
    page = bytearray(machine.memory.read(VirtAddr(place & ~(PAGE_SIZE - 1)), PAGE_SIZE))
    page[place % PAGE_SIZE : place % PAGE_SIZE + len(found[1])] = found[1]
    put(machine, "copy of a page of code", direct(machine, frames[0]), bytes(page))
    top = _top_table(machine, process)
    own = _own_tables(machine, place, frames)
    index = (place >> (12 + 9 * (machine.memory.levels - 1))) & (_ENTRIES - 1)
    change = put_pointer(machine, f"top page table entry of {process}", VirtAddr(top + 8 * index), own)
    reach = 12 + 9 * (machine.memory.levels - 1)
    values = {"copy": int(frames[0]), "place": int(place), "mapped": place >> reach << reach}
    return Planted((change,), values=values)


def _own_tables(machine: Machine, place: VirtAddr, frames: list[PhysAddr]) -> int:
    """Copies the tables below the top one into `frames`, from the last up; gives the entry for the top table."""
    chain = list(_each_entry(machine, place))
    below = _leaf_like(chain[-1][1], chain[-1][2], frames[0])
    for level in range(machine.memory.levels - 1):
        table = bytearray(_table(machine, chain, level))
        struct.pack_into("<Q", table, 8 * ((place >> (12 + 9 * level)) & (_ENTRIES - 1)), below)
        put(machine, "copy of a page table", direct(machine, frames[level + 1]), bytes(table))
        below = frames[level + 1] | 0x63
    return chain[0][1] & ~_FRAME | frames[-1]


def _each_entry(machine: Machine, place: VirtAddr) -> list[tuple[PhysAddr, int, int]]:
    """The entries that translate an address, from the top: (where, value, bytes that one such entry spans)."""
    assert machine.memory.root is not None
    found, table = [], machine.memory.root
    for level in range(machine.memory.levels - 1, -1, -1):
        where = PhysAddr(table + 8 * ((place >> (12 + 9 * level)) & (_ENTRIES - 1)))
        (value,) = struct.unpack("<Q", machine.memory.physical(where, 8))
        found.append((where, value, 1 << (12 + 9 * level)))
        if level and value & _LARGE:
            break
        table = PhysAddr(value & _FRAME)
    return found


def _leaf_like(value: int, size: int, frame: PhysAddr) -> int:
    """An entry of the last level with the rights of a leaf of any level."""
    if size == PAGE_SIZE:
        return value & ~_FRAME | frame
    return value & ~_FRAME & ~_LARGE & ~_LARGE_PAT | frame


def _table(machine: Machine, chain: list[tuple[PhysAddr, int, int]], level: int) -> bytes:
    """The table of a level on the way to an address; below a large page, the table that would map the same."""
    for where, _, size in chain:
        if size == 1 << (12 + 9 * level):
            return machine.memory.physical(PhysAddr(where & ~(PAGE_SIZE - 1)), PAGE_SIZE)
    _, value, size = chain[-1]
    if size != _LARGE_SIZE:
        raise NotApplicable("the code lies on a page of one gigabyte")
    first = value & _FRAME & ~(size - 1)
    return b"".join(
        struct.pack("<Q", _leaf_like(value, size, PhysAddr(first + number * PAGE_SIZE))) for number in range(_ENTRIES)
    )


def _top_table(machine: Machine, process: str) -> VirtAddr:
    """Where the top page table of a process is, from its task's memory map."""
    task = task_of(machine, int(machine.text(f"pidof {process}").split()[0]))
    btf = machine.btf()
    mm = machine.memory.pointer(VirtAddr(task + btf.member("task_struct", "mm").offset))
    return machine.memory.pointer(VirtAddr(mm + btf.member("mm_struct", "pgd").offset))


def _short(change: Change, start: int, length: int) -> Change:
    """Only the part of a long change that matters."""
    part = slice(2 * start, 2 * (start + length))
    return Change(change.object, VirtAddr(change.address + start), change.before[part], change.after[part])
