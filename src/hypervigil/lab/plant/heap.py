"""Objects in the kernel's heap whose operations lead elsewhere.

An object is found by what must be in it: the only place in RAM, besides the kernel and its modules themselves, that
holds the address of its operations. The copy of a table goes into a block of heap of the range's own.
"""

import struct
from collections.abc import Iterator

from hypervigil.core.errors import MissingMemory, UsageError
from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.machine import Machine
from hypervigil.lab.plant.change import put, put_pointer
from hypervigil.lab.plant.pointers import slot_of
from hypervigil.lab.plant.stub import pass_through
from hypervigil.lab.symbols import Symbol
from hypervigil.lab.truth import Planted

_FRAME = 0x000F_FFFF_FFFF_F000
_IMAGE_START = VirtAddr(0xFFFF_FFFF_8000_0000)
_IMAGE_END = VirtAddr(0xFFFF_FFFF_FF00_0000)
_MARK = 16
_SYMBOL = 24
_LARGEST_OBJECT = 1 << 20


def image_frames(machine: Machine) -> set[int]:
    """Physical pages that the kernel's own image and its modules occupy."""
    frames: set[int] = set()
    for _, entry, size in machine.memory.each_leaf(_IMAGE_START, _IMAGE_END):
        first = entry & _FRAME & ~(size - 1)
        frames.update(range(first, first + size, PAGE_SIZE))
    return frames


def direct(machine: Machine, address: PhysAddr) -> VirtAddr:
    """The address at which the kernel's direct map shows a physical one."""
    base = machine.agent.peek_pointer(machine.symbols.find("page_offset_base").address)
    return VirtAddr(base + address)


def each_heap_match(machine: Machine, pattern: bytes) -> Iterator[VirtAddr]:
    """Places outside the kernel and its modules that hold `pattern`, as direct-map addresses.

    Freed pages still hold symbol tables from when modules were loaded; entries of such a table are passed over.
    """
    image = image_frames(machine)
    for at in machine.memory.each_match(pattern):
        if at & ~(PAGE_SIZE - 1) not in image and not _in_symbol_table(machine, at):
            yield direct(machine, at)


def _in_symbol_table(machine: Machine, at: PhysAddr) -> bool:
    """Whether `at` is the value in an Elf64_Sym (name, info, other, section, value, size) among others of its kind."""
    if at < _SYMBOL or at + 2 * _SYMBOL > machine.memory.size:
        return False
    before, size, after = (
        struct.unpack("<Q", machine.memory.physical(PhysAddr(where), 8))[0]
        for where in (at - _SYMBOL, at + 8, at + _SYMBOL)
    )
    return size < _LARGEST_OBJECT and all(_IMAGE_START <= value < _IMAGE_END for value in (before, after))


def only_match(machine: Machine, pattern: bytes, what: str) -> VirtAddr:
    """The one place in the heap that holds `pattern`.

    Raises:
        NotApplicable: there is none.
        UsageError: there are several.
    """
    found = list(each_heap_match(machine, pattern))
    if not found:
        raise NotApplicable(f"the host has no {what}")
    if len(found) > 1:
        raise UsageError(f"the host has {len(found)} places that look like {what}: {[hex(a) for a in found]}")
    return found[0]


def hold(machine: Machine, size: int) -> VirtAddr:
    """A block of `size` bytes of heap, aligned to 16, that nobody uses."""
    result = machine.sh(f"hold {size + 2 * _MARK}")
    if result.status:
        raise UsageError("cannot hold a block of the host's heap")
    mark = bytes.fromhex(result.text.strip())
    address = _first(machine, mark)
    return VirtAddr((address + _MARK - 1) & ~(_MARK - 1))


def _first(machine: Machine, mark: bytes) -> VirtAddr:
    for address in each_heap_match(machine, mark * 2):
        return address
    raise UsageError("the held block of heap is not in RAM")


def object_ops(machine: Machine, *, ops: list[str], function: list[str], what: str) -> Planted:
    """Points an object at a copy of its operations, in which one function is a stub.

    Args:
        machine: the host.
        ops: names the operations' symbol may have.
        function: names the function to replace in the copy may have.
        what: the object's pointer in the kernel's terms ("kvm_pit.dev.ops").
    """
    table = machine.symbols.find(*ops)
    place = only_match(machine, struct.pack("<Q", table.address), what)
    return _turn_to_copy(machine, what, place, table, function)


def table_entry(machine: Machine, *, table: list[str], ops: list[str], function: list[str]) -> Planted:
    """Points an entry of a table of operations at a copy of one, in which one function is a stub."""
    holder, original = machine.symbols.find(*table), machine.symbols.find(*ops)
    slot, _ = slot_of(machine, holder, ops)
    return _turn_to_copy(machine, f"{holder.name} entry of {original.name}", slot, original, function)


def _turn_to_copy(machine: Machine, what: str, place: VirtAddr, table: Symbol, function: list[str]) -> Planted:
    slot, target = slot_of(machine, table, function)
    size = machine.symbols.end(table) - table.address
    stub = pass_through(machine, target.address)
    copy = hold(machine, size)
    content = bytearray(machine.memory.read(table.address, size))
    content[slot - table.address : slot - table.address + 8] = struct.pack("<Q", stub.address)
    copied = put(machine, f"copy of {table.name}", copy, bytes(content))
    change = put_pointer(machine, what, place, copy)
    values = {"original": int(table.address), "copy": int(copy), "function": int(target.address)}
    return Planted((change, copied, stub.change), stub.address, values)


def wake_function(machine: Machine) -> Planted:
    """Turns the wake function of an irqfd to a stub.

    Source: virt/kvm/eventfd.c, `struct kvm_kernel_irqfd.wait`; include/linux/wait.h, `struct wait_queue_entry`, in
    which a private pointer (here NULL) comes before the function and a list entry after it.
    """
    target = machine.symbols.find("irqfd_wakeup").address
    for place in each_heap_match(machine, bytes(8) + struct.pack("<Q", target)):
        if on_list(machine, VirtAddr(place + 16)):
            stub = pass_through(machine, target)
            change = put_pointer(machine, "kvm_kernel_irqfd.wait.func", VirtAddr(place + 8), stub.address)
            return Planted((change, stub.change), stub.address, {"original": target})
    raise NotApplicable("the host has no irqfd")


def on_list(machine: Machine, entry: VirtAddr) -> bool:
    """Whether the neighbours of a struct list_head point back to it."""
    try:
        following, previous = machine.memory.pointer(entry), machine.memory.pointer(VirtAddr(entry + 8))
        return machine.memory.pointer(VirtAddr(following + 8)) == entry == machine.memory.pointer(previous)
    except MissingMemory:
        return False
