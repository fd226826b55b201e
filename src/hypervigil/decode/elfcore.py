"""ELF core files that hold physical memory: QEMU's dump-guest-memory, kdump's vmcore, virsh dump --memory-only.

Sources: System V ABI (ELF header, program headers, notes; PN_XNUM: the true number of program headers stands in
sh_info of section 0); QEMU dump/dump.c (`PT_LOAD` of paging and non-paging dumps, QEMU and NT_PRSTATUS notes); Linux
kernel/kexec_core.c and kernel/vmcore_info.c (VMCOREINFO note).
"""

import struct
from typing import TYPE_CHECKING

import msgspec

from hypervigil.core.errors import DecodeError, UnsupportedEvidence
from hypervigil.core.units import PhysAddr, VirtAddr
from hypervigil.decode.cpustate import CpuState, decode_prstatus, decode_qemu_state

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"\x7fELF"
"""The first four bytes of every ELF file."""

MAX_SEGMENTS = 1 << 18
"""Program headers that are believed: hosts of many terabytes have some ten thousand."""

MAX_NOTES = 1 << 16
"""Notes that are read: two for each processor, and a few."""

MAX_NOTE = 1 << 20
"""Bytes of one note; VMCOREINFO has at most a page or two."""

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION_INFO = 44  # offset of sh_info in Elf64_Shdr
_SECTION_SIZE = 64
_NOTE = struct.Struct("<III")
_PN_XNUM = 0xFFFF
_PT_LOAD, _PT_NOTE = 1, 4
_ET_CORE = 4
_EM_X86_64 = 62
_EM_386 = 3  # what QEMU writes when the first processor ran 32-bit or 16-bit code, such as a nested guest's
_NT_PRSTATUS = 1
_NO_ADDRESS = (1 << 64) - 1
_TYPES = {1: "object", 2: "executable", 3: "shared object"}
_MACHINES = {
    2: "sparc",
    8: "mips",
    20: "powerpc",
    21: "powerpc64",
    22: "s390x",
    40: "arm",
    50: "ia64",
    183: "aarch64",
    243: "riscv",
    258: "loongarch",
}


class LoadSegment(msgspec.Struct, frozen=True):
    """A piece of memory.

    Attributes:
        physical: address of its first byte.
        virtual: virtual address of its first byte as the dumper saw it; in dumps without paging the same number
            as `physical` or 0, and then it means nothing.
        offset: where it begins in the file, in bytes.
        file_size: bytes of it that the file holds, unless the file is cut short.
        memory_size: bytes that it had in memory; what exceeds `file_size` was not dumped.
    """

    physical: PhysAddr
    virtual: VirtAddr
    offset: int
    file_size: int
    memory_size: int


class ElfCore(msgspec.Struct, frozen=True):
    """A decoded core: its memory and its notes.

    Attributes:
        segments: in the order of the file.
        cpus: processors, from QEMU's notes where there are any, else from NT_PRSTATUS.
        vmcoreinfo: half-open file range of the VMCOREINFO text, None if there is none.
        faults: what could not be read, as sentences.
    """

    segments: tuple[LoadSegment, ...]
    cpus: tuple[CpuState, ...]
    vmcoreinfo: tuple[int, int] | None
    faults: tuple[str, ...]


class _Note(msgspec.Struct, frozen=True):
    name: bytes
    kind: int
    start: int
    end: int


def decode_elf_core(data: memoryview) -> ElfCore:
    """Decode headers and notes; memory itself is not touched.

    Args:
        data: the whole file.

    Raises:
        UnsupportedEvidence: an ELF that is not a core of x86-64, named.
        DecodeError: headers that do not fit the format or lie outside of the file.
    """
    place, count = _program_headers(data)
    segments: list[LoadSegment] = []
    notes: list[_Note] = []
    faults: list[str] = []
    for position in range(count):
        kind, _, offset, virtual, physical, size, memory, _ = _PROGRAM.unpack_from(
            data, place + position * _PROGRAM.size
        )
        if kind == _PT_LOAD and physical != _NO_ADDRESS:
            segments.append(LoadSegment(PhysAddr(physical), VirtAddr(virtual), offset, size, memory))
        elif kind == _PT_NOTE:
            try:
                notes.extend(_each_note(data, offset, offset + size, MAX_NOTES - len(notes)))
            except DecodeError as fault:
                faults.append(str(fault))
    cpus = _processors(data, notes, faults)
    texts = [(note.start, note.end) for note in notes if note.name == b"VMCOREINFO"]
    return ElfCore(tuple(segments), cpus, texts[0] if texts else None, tuple(faults))


def _program_headers(data: memoryview) -> tuple[int, int]:
    """File offset and number of the program headers, after all checks of the file header."""
    if len(data) < _HEADER.size or bytes(data[:4]) != MAGIC:
        raise DecodeError("elf header", "not an ELF file", 0)
    ident, kind, machine, _, _, place, sections, _, _, entry, count, _, _, _ = _HEADER.unpack_from(data)
    _refuse_others(ident, kind, machine)
    if entry != _PROGRAM.size:
        raise DecodeError("elf header", f"program headers of {entry} bytes", 54)
    if count == _PN_XNUM:
        if sections == 0 or sections + _SECTION_SIZE > len(data):
            raise DecodeError("elf header", "the number of program headers is outside of the file", 40)
        (count,) = struct.unpack_from("<I", data, sections + _SECTION_INFO)
    if count > MAX_SEGMENTS or place + count * _PROGRAM.size > len(data):
        raise DecodeError("elf header", f"{count} program headers are too many for the file", place)
    return place, count


def _refuse_others(ident: bytes, kind: int, machine: int) -> None:
    if ident[4:6] != b"\2\1":
        width = "32-bit" if ident[4] == 1 else "big-endian"
        raise UnsupportedEvidence(f"a {width} ELF file; only memory of x86-64 machines is read")
    if machine not in {_EM_X86_64, _EM_386}:
        name = _MACHINES.get(machine, f"machine number {machine}")
        raise UnsupportedEvidence(f"an ELF file of {name}; only memory of x86-64 machines is read")
    if kind != _ET_CORE:
        name = _TYPES.get(kind, f"type {kind}")
        raise UnsupportedEvidence(f"an ELF {name}, not a core file with a machine's memory")


def _each_note(data: memoryview, at: int, end: int, limit: int) -> "Iterator[_Note]":
    if end > len(data):
        raise DecodeError("elf notes", "the notes end outside of the file", at)
    for _ in range(limit):
        if at + _NOTE.size > end:
            return
        name_size, size, kind = _NOTE.unpack_from(data, at)
        start = at + _NOTE.size + (name_size + 3) // 4 * 4
        if name_size > MAX_NOTE or size > MAX_NOTE or start + size > end:
            raise DecodeError("elf notes", f"a note of {name_size} + {size} bytes does not fit", at)
        name = bytes(data[at + _NOTE.size : at + _NOTE.size + name_size]).rstrip(b"\0")
        yield _Note(name, kind, start, start + size)
        at = start + (size + 3) // 4 * 4
    raise DecodeError("elf notes", f"more than {MAX_NOTES} notes", at)


def _processors(data: memoryview, notes: list[_Note], faults: list[str]) -> tuple[CpuState, ...]:
    full = [note for note in notes if note.name == b"QEMU" and note.kind == 0]
    brief = [note for note in notes if note.name == b"CORE" and note.kind == _NT_PRSTATUS]
    decode, chosen = (decode_qemu_state, full) if full else (decode_prstatus, brief)
    states = []
    for cpu, note in enumerate(chosen):
        try:
            states.append(decode(bytes(data[note.start : note.end]), cpu))
        except DecodeError as fault:
            faults.append(str(fault))
    return tuple(states)
