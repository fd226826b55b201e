"""Pages that may be written and executed, or executed without belonging to any code.

Source: Intel SDM volume 3, 4.5 (bit 1 of a leaf is "writable", bit 63 "no execute").
"""

from hypervigil.core.errors import UsageError
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.machine import Machine
from hypervigil.lab.memory import NX, WRITABLE
from hypervigil.lab.plant.change import put, put_pointer
from hypervigil.lab.plant.heap import direct
from hypervigil.lab.plant.pointers import slot_of
from hypervigil.lab.plant.stub import jump_far
from hypervigil.lab.truth import Change, Planted

_SPARE = 512


def _set_entry(machine: Machine, name: str, page: VirtAddr, value: int) -> Change:
    where, _, _ = machine.memory.entry(page)
    return put_pointer(machine, name, direct(machine, where), value)


def writable_text(machine: Machine, *, function: list[str], module: str | None = None) -> Planted:
    """Sets the writable bit of the page that holds a function; its code stays as it was."""
    symbol = machine.symbols.find(*function, module=module)
    _, value, size = machine.memory.entry(symbol.address)
    if value & WRITABLE:
        raise NotApplicable(f"{symbol.name} lies on a writable page already")
    change = _set_entry(machine, f"page table entry of {symbol.name}", symbol.address, value | WRITABLE)
    return Planted((change,), values={"page": symbol.address & ~(size - 1), "size": size, "function": symbol.address})


def ownerless_code(machine: Machine, *, table: list[str] | None = None, function: list[str] | None = None) -> Planted:
    """Makes a page of a terminal's buffer executable and puts a stub there, to which a table's slot may lead."""
    page = _terminal_page(machine)
    target = machine.symbols.find("kvm_vcpu_ioctl").address
    slot = None
    if table and function:
        slot, symbol = slot_of(machine, machine.symbols.find(*table), function)
        target = symbol.address
    stub = VirtAddr(page + PAGE_SIZE - _SPARE)
    code = put(machine, "stub", stub, jump_far(target))
    _, value, _ = machine.memory.entry(page)
    changes = [_set_entry(machine, "page table entry of the stub's page", page, value & ~NX)]
    if slot is not None:
        changes.append(put_pointer(machine, f"{table[0] if table else ''} slot", slot, stub))
    return Planted((*changes, code), stub, {"page": page, "original": target})


def _terminal_page(machine: Machine) -> VirtAddr:
    """The last page of a vmalloc'ed `struct n_tty_data` (drivers/tty/n_tty.c), whose end is not used."""
    old = machine.sh("cat /proc/sys/kernel/kptr_restrict; echo 1 > /proc/sys/kernel/kptr_restrict").text.strip()
    lines = machine.sh("grep n_tty_open /proc/vmallocinfo").text.splitlines()
    machine.sh(f"echo {old} > /proc/sys/kernel/kptr_restrict")
    for line in lines:
        end = int(line.split()[0].partition("-")[2], 16)
        page = VirtAddr(end - 2 * PAGE_SIZE)  # the area ends with a guard page
        _, value, size = machine.memory.entry(page)
        if value & NX and size == PAGE_SIZE and not any(machine.memory.read(page, PAGE_SIZE)[-_SPARE:]):
            return page
    raise UsageError("no terminal buffer with an unused end was found")


def const_bytes(machine: Machine, *, table: list[str], offset: int, flip: int) -> Planted:
    """Flips bits of one byte of a constant table."""
    symbol = machine.symbols.find(*table)
    address = VirtAddr(symbol.address + offset)
    old = machine.memory.read(address, 1)
    change = put(machine, f"{symbol.name}+{offset:#x}", address, bytes([old[0] ^ flip]))
    return Planted((change,), values={"table": symbol.address})
