"""Harmless code: it passes a call on, or only returns. It is put where executable memory has room to spare."""

import struct

import msgspec

from hypervigil.core.errors import MissingMemory
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.machine import Machine
from hypervigil.lab.memory import NX
from hypervigil.lab.plant.change import put
from hypervigil.lab.truth import Change

_ENDBR = bytes.fromhex("f30f1efa")
_RETURN = b"\xc3"
_SPARE = 16
_MOST_PAGES = 64
_TEXT_KINDS = "tT"
_FALLBACK = ("kvm", "irqbypass", "")


class Stub(msgspec.Struct, frozen=True):
    """Code that was put in place: where it begins, and the change that it is."""

    address: VirtAddr
    change: Change


def jump_far(target: int) -> bytes:
    """`endbr64; movabs $target,%r11; jmp *%r11`: r11 is the callee's to spoil (System V ABI, 3.2.1)."""
    return _ENDBR + b"\x49\xbb" + struct.pack("<Q", target) + b"\x41\xff\xe3"


def branch(opcode: int, at: int, target: int) -> bytes:
    """A five-byte `call` (0xe8) or `jmp` (0xe9) at address `at`."""
    return bytes([opcode]) + struct.pack("<i", target - (at + 5))


def room(machine: Machine, where: str, size: int) -> VirtAddr:
    """The start of `size` unused executable bytes in the text of module `where`, or of the kernel if that is "".

    A module whose text fills its last page is passed over for kvm, irqbypass, and at last the kernel.

    Raises:
        NotApplicable: there is no such room.
    """
    for place in dict.fromkeys((where, *_FALLBACK)):
        address = _room_in(machine, place, size)
        if address is not None:
            return address
    raise NotApplicable("no unused room at the end of any text")


def _room_in(machine: Machine, where: str, size: int) -> VirtAddr | None:
    last = _last_text(machine, where)
    if last is None:
        return None
    page = VirtAddr(last & ~(PAGE_SIZE - 1))
    for _ in range(_MOST_PAGES):
        if not _executable(machine, page):
            break
        tail = machine.memory.read(page, PAGE_SIZE)[-(size + 2 * _SPARE) :]
        if len(set(tail)) == 1 and tail[0] in {0, 0xCC}:
            return VirtAddr(page + PAGE_SIZE - size - _SPARE & ~0xF)
        page = VirtAddr(page + PAGE_SIZE)
    return None


def _last_text(machine: Machine, where: str) -> VirtAddr | None:
    if not where:
        return VirtAddr(machine.symbols.find("_etext").address - 1)
    addresses = [s.address for s in machine.symbols if s.module == where and s.kind in _TEXT_KINDS]
    return max(addresses, default=None)


def _executable(machine: Machine, page: VirtAddr) -> bool:
    try:
        return not machine.memory.entry(page)[1] & NX
    except MissingMemory:
        return False


def pass_through(machine: Machine, target: int, where: str = "kvm_amd") -> Stub:
    """A stub that jumps on to `target`."""
    return _place(machine, jump_far(target), where)


def direct_pass_through(machine: Machine, target: int, where: str = "", lead: bytes = b"") -> Stub:
    """A stub of `lead` and a direct jump to `target`, which spoils no register."""
    address = room(machine, where, len(lead) + 5)
    code = lead + branch(0xE9, address + len(lead), target)
    return Stub(address, put(machine, "stub", address, code))


def only_returns(machine: Machine, where: str = "kvm_amd") -> Stub:
    """A stub that is a single `ret`."""
    return _place(machine, _RETURN, where)


def _place(machine: Machine, code: bytes, where: str) -> Stub:
    address = room(machine, where, len(code))
    return Stub(address, put(machine, "stub", address, code))
