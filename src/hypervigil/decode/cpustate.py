"""Registers of a processor, from the places where memory formats and hypervisors write them down.

A register that a source does not give is None, never 0: an unknown CR3 is not a CR3 of zero.

Sources: QEMU target/i386/arch_dump.c (`QEMUCPUState`, `x86_64_elf_prstatus`) and target/i386/cpu-dump.c (the text of
``info registers``); Linux include/uapi/linux/elfcore.h and arch/x86/include/asm/user_64.h (`user_regs_struct`).
"""

import re
import struct

import msgspec

from hypervigil.core.errors import DecodeError
from hypervigil.core.units import VirtAddr


class DescriptorTable(msgspec.Struct, frozen=True):
    """Base and limit of the GDT or IDT; the limit is the offset of its last byte."""

    base: VirtAddr
    limit: int


class CpuState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one processor at the moment of the dump.

    A processor that was running a nested guest may show that guest's registers: nobody may take `cr3` for the
    host's page table before it has been compared with the host's kernel.

    Attributes:
        cpu: its number in the order of the source, from 0.
        source: who wrote it down: `QEMU` note, `NT_PRSTATUS` note, `info registers`.
        rip: instruction pointer.
        rsp: stack pointer.
        rflags: flags.
        cs: selector of the code segment; its low two bits are the privilege level.
        gs_base: in kernel mode the address of the processor's per-CPU area.
        kernel_gs_base: what SWAPGS would bring into `gs_base`.
        fs_base: thread pointer of user mode.
        cr0: control register 0.
        cr2: last page fault address.
        cr3: control register 3: physical address of the top page table, with PCID and flags in the low 12 bits.
        cr4: control register 4; bit 12 (LA57) says that there are five levels of tables.
        gdt: global descriptor table.
        idt: interrupt descriptor table.
        efer: extended feature enable register.
    """

    cpu: int
    source: str
    rip: VirtAddr | None = None
    rsp: VirtAddr | None = None
    rflags: int | None = None
    cs: int | None = None
    gs_base: VirtAddr | None = None
    kernel_gs_base: VirtAddr | None = None
    fs_base: VirtAddr | None = None
    cr0: int | None = None
    cr2: int | None = None
    cr3: int | None = None
    cr4: int | None = None
    gdt: DescriptorTable | None = None
    idt: DescriptorTable | None = None
    efer: int | None = None


_QEMU_STATE = struct.Struct("<II18Q" + 10 * "IIIIQ" + "5Q")
_QEMU_VERSION = 1
_GENERAL = 2  # index of rax in the unpacked state
_RSP, _RIP, _RFLAGS = _GENERAL + 6, _GENERAL + 16, _GENERAL + 17
_SEGMENTS = 20  # index of the selector of cs
_SEGMENT_FIELDS = 5
_CS, _FS, _GS, _GDT, _IDT = 0, 3, 4, 8, 9
_CONTROL = _SEGMENTS + 10 * _SEGMENT_FIELDS

_PRSTATUS_REGISTERS = 112  # offset of pr_reg in struct elf_prstatus
_PRSTATUS = struct.Struct("<27Q")
_PR_RIP, _PR_CS, _PR_FLAGS, _PR_RSP, _PR_FS_BASE, _PR_GS_BASE = 16, 17, 18, 19, 21, 22

_MAX_TEXT = 1 << 22
_CPU_HEAD = re.compile(r"^CPU#(\d{1,5})\s*$", re.MULTILINE)
_NAMED = re.compile(r"\b(RIP|RSP|RFL|EFER|CR0|CR2|CR3|CR4)\s*=\s*([0-9a-f]{8,16})\b")
_SEGMENT = re.compile(r"^(CS|FS|GS) ?=([0-9a-f]{4}) ([0-9a-f]{8,16}) ([0-9a-f]{8})", re.MULTILINE)
_TABLE = re.compile(r"^(GDT|IDT)=\s+([0-9a-f]{8,16}) ([0-9a-f]{8})", re.MULTILINE)


def decode_qemu_state(data: bytes, cpu: int) -> CpuState:
    """Decode the descriptor of a note named ``QEMU``.

    Args:
        data: the whole descriptor; older versions lack the last field, KERNEL_GS_BASE.
        cpu: number to give it.

    Raises:
        DecodeError: shorter than its version says, or a version that is not known.
    """
    if len(data) < _QEMU_STATE.size:
        raise DecodeError("qemu cpu state", f"{len(data)} bytes, fewer than {_QEMU_STATE.size}")
    fields = _QEMU_STATE.unpack_from(data)
    version, size = fields[:2]
    if version != _QEMU_VERSION or not _QEMU_STATE.size <= size <= len(data):
        raise DecodeError("qemu cpu state", f"version {version} with {size} bytes is not known", 0)
    has_gs = size >= _QEMU_STATE.size + 8
    control = fields[_CONTROL:]
    return CpuState(
        cpu=cpu,
        source="QEMU note",
        rip=VirtAddr(fields[_RIP]),
        rsp=VirtAddr(fields[_RSP]),
        rflags=fields[_RFLAGS],
        cs=fields[_SEGMENTS],
        gs_base=_base(fields, _GS),
        fs_base=_base(fields, _FS),
        kernel_gs_base=VirtAddr(struct.unpack_from("<Q", data, _QEMU_STATE.size)[0]) if has_gs else None,
        cr0=control[0],
        cr2=control[2],
        cr3=control[3],
        cr4=control[4],
        gdt=DescriptorTable(_base(fields, _GDT), _limit(fields, _GDT)),
        idt=DescriptorTable(_base(fields, _IDT), _limit(fields, _IDT)),
    )


def decode_prstatus(data: bytes, cpu: int) -> CpuState:
    """Decode the descriptor of an NT_PRSTATUS note of x86-64: general registers and segment bases only.

    Raises:
        DecodeError: too short.
    """
    if len(data) < _PRSTATUS_REGISTERS + _PRSTATUS.size:
        raise DecodeError("prstatus", f"{len(data)} bytes are too few for x86-64")
    fields = _PRSTATUS.unpack_from(data, _PRSTATUS_REGISTERS)
    return CpuState(
        cpu=cpu,
        source="NT_PRSTATUS note",
        rip=VirtAddr(fields[_PR_RIP]),
        rsp=VirtAddr(fields[_PR_RSP]),
        rflags=fields[_PR_FLAGS],
        cs=fields[_PR_CS],
        gs_base=VirtAddr(fields[_PR_GS_BASE]),
        fs_base=VirtAddr(fields[_PR_FS_BASE]),
    )


def decode_info_registers(text: str) -> tuple[CpuState, ...]:
    """Decode what QEMU's monitor answers to ``info registers -a`` for x86-64.

    Raises:
        DecodeError: no processor in the text, one without CR3, or a text of more than 4 MiB.
    """
    if len(text) > _MAX_TEXT:
        raise DecodeError("info registers", f"{len(text)} characters are too many")
    parts = _CPU_HEAD.split(text)[1:]
    states = [_from_text(int(number), body) for number, body in zip(parts[::2], parts[1::2], strict=True)]
    if not states:
        raise DecodeError("info registers", "no line names a processor")
    return tuple(states)


def _from_text(cpu: int, text: str) -> CpuState:
    named = {name: int(value, 16) for name, value in _NAMED.findall(text)}
    segments = {name: (int(selector, 16), int(base, 16)) for name, selector, base, _ in _SEGMENT.findall(text)}
    tables = {
        name: DescriptorTable(VirtAddr(int(base, 16)), int(limit, 16)) for name, base, limit in _TABLE.findall(text)
    }
    if "CR3" not in named:
        raise DecodeError("info registers", f"processor {cpu} has no CR3: not x86, or another QEMU's text")
    addresses = {name: VirtAddr(named[name]) for name in ("RIP", "RSP") if name in named}
    bases = {name: VirtAddr(base) for name, (_, base) in segments.items()}
    return CpuState(
        cpu=cpu,
        source="info registers",
        rip=addresses.get("RIP"),
        rsp=addresses.get("RSP"),
        rflags=named.get("RFL"),
        cs=segments["CS"][0] if "CS" in segments else None,
        gs_base=bases.get("GS"),
        fs_base=bases.get("FS"),
        cr0=named.get("CR0"),
        cr2=named.get("CR2"),
        cr3=named["CR3"],
        cr4=named.get("CR4"),
        gdt=tables.get("GDT"),
        idt=tables.get("IDT"),
        efer=named.get("EFER"),
    )


def _base(fields: tuple[int, ...], segment: int) -> VirtAddr:
    return VirtAddr(fields[_SEGMENTS + segment * _SEGMENT_FIELDS + 4])


def _limit(fields: tuple[int, ...], segment: int) -> int:
    return fields[_SEGMENTS + segment * _SEGMENT_FIELDS + 1]
