"""What a kernel says about itself, forged: kallsyms, VMCOREINFO, BTF."""

import re
import struct

import numpy as np

from hypervigil.core.errors import UsageError
from hypervigil.core.units import VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.machine import Machine
from hypervigil.lab.plant.change import Write, pointer, put, put_all
from hypervigil.lab.plant.pointers import slot_of
from hypervigil.lab.plant.stub import pass_through
from hypervigil.lab.symbols import Symbol
from hypervigil.lab.truth import Planted

_RUN = 24
_NOTE_TEXT = 4096


def kallsyms(machine: Machine, *, table: list[str], function: list[str]) -> Planted:
    """Turns a table's slot to a stub and makes the kernel's symbol table call the stub by the function's name."""
    slot, target = slot_of(machine, machine.symbols.find(*table), function)
    entry, sign = _offset_entry(machine, target)
    stub = pass_through(machine, target.address, "")
    (old,) = struct.unpack("<i", machine.memory.read(entry, 4))
    forged = old + sign * (stub.address - target.address)
    changes = put_all(
        machine,
        [
            pointer(f"{table[0]}.{target.name}", slot, stub.address),
            Write(f"kallsyms offset of {target.name}", entry, struct.pack("<i", forged)),
        ],
    )
    return Planted((*changes, stub.change), stub.address, {"original": target.address})


def _offset_entry(machine: Machine, target: Symbol) -> tuple[VirtAddr, int]:
    """Where kallsyms_offsets holds a symbol's offset, and whether offsets grow (1) or fall (-1) with addresses.

    Found by the differences of neighbours, which are the same in all encodings (kernel/kallsyms.c,
    `kallsyms_sym_address`), save that place-relative ones lose four bytes a step.
    """
    kernel = [symbol for symbol in machine.symbols.listed if not symbol.module]
    at = kernel.index(target)
    steps = np.diff(np.array([symbol.address for symbol in kernel[at : at + _RUN]], dtype=np.uint64)).astype(np.int64)
    start = machine.symbols.find("__start_rodata").address
    length = machine.symbols.find("__end_rodata").address - start
    table = np.frombuffer(machine.memory.read(start, length & ~3), dtype="<i4").astype(np.int64)
    found = np.diff(table)
    for sign, loss in ((1, 0), (-1, 0), (1, 4)):
        hits = _runs(found, sign * steps - loss)
        if len(hits) == 1:
            return VirtAddr(start + 4 * hits[0]), sign
    raise NotApplicable(f"the offset of {target.name} was not found in the kernel's symbol table")


def _runs(values: np.ndarray, pattern: np.ndarray) -> list[int]:
    hits = np.flatnonzero(values[: len(values) - len(pattern) + 1] == pattern[0])
    return [int(hit) for hit in hits if np.array_equal(values[hit : hit + len(pattern)], pattern)]


def vmcoreinfo(machine: Machine, *, key: str, digits: str) -> Planted:
    """Overwrites the value of a key of VMCOREINFO, in the kernel's text of it and in the note made from that.

    Source: kernel/crash_core.c (since 6.9 kernel/vmcore_info.c), `vmcoreinfo_data` and `vmcoreinfo_note`.
    """
    writes = []
    for name in ("vmcoreinfo_data", "vmcoreinfo_note"):
        start = machine.memory.pointer(machine.symbols.find(name).address)
        found = re.search(rb"\n" + re.escape(key.encode()) + rb"=([0-9a-f]+)\n", machine.memory.read(start, _NOTE_TEXT))
        if not found:
            raise NotApplicable(f"VMCOREINFO has no {key}")
        value = digits.encode()[-len(found[1]) :].rjust(len(found[1]), b"0")
        writes.append(Write(f"{name} {key}", VirtAddr(start + found.start(1)), value))
    return Planted(put_all(machine, writes))


def btf_member(machine: Machine, *, structure: str, member: str, shift: int) -> Planted:
    """Moves a member by `shift` bytes in the kernel's own description of its types."""
    found = machine.btf().member(structure, member)
    address = VirtAddr(machine.symbols.find("__start_BTF").address + found.record)
    (old,) = struct.unpack("<I", machine.memory.read(address, 4))
    if old & 0xFFFFFF != found.offset * 8:
        raise UsageError(f"the BTF in RAM does not place {structure}.{member} where the host says")
    change = put(machine, f"BTF offset of {structure}.{member}", address, struct.pack("<I", old + 8 * shift))
    return Planted((change,), values={"offset": found.offset, "forged": found.offset + shift})
