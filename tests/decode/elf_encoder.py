"""Builds ELF cores from segments and notes, sound ones and others."""

import struct

LOAD, NOTE = 1, 4


def note(name: bytes, kind: int, content: bytes) -> bytes:
    padded = name + b"\0" + bytes(-(len(name) + 1) % 4)
    return struct.pack("<III", len(name) + 1, len(content), kind) + padded + content + bytes(-len(content) % 4)


def qemu_state(*, cr3: int = 0x1234000, gs: int = 0xFFFF_8000_0000_1000, idt: int = 0x9000, size: int = 440) -> bytes:
    registers = struct.pack("<18Q", *range(100, 118))
    bases = {index: 0x1000 * index for index in range(10)} | {4: gs, 9: idt}
    segments = b"".join(struct.pack("<IIIIQ", 0x10 + i, 0xFFF, 0, 0, base) for i, base in bases.items())
    control = struct.pack("<5Q", 0x80050033, 0, 0x5000, cr3, 0x3506F0)
    return (struct.pack("<II", 1, size) + registers + segments + control + struct.pack("<Q", 0xAAAA))[:size]


def elf(
    segments: list[tuple[int, bytes]],
    notes: bytes = b"",
    *,
    ident: bytes = b"\x7fELF\2\1\1",
    kind: int = 4,
    machine: int = 62,
    xnum: bool = False,
    memory_size: int | None = None,
) -> bytes:
    """Segments are (physical address, content); memory_size is written for all of them instead of their length."""
    count = len(segments) + bool(notes)
    start = 64 + 56 * count + (64 if xnum else 0)
    sections = 64 + 56 * count if xnum else 0
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, kind, machine, 1, 0, 64, sections, 0, 64, 56, 0xFFFF if xnum else count, 64, 0, 0
    )
    programs, body = b"", b""
    for physical, content, type_ in [(0, notes, NOTE)] * bool(notes) + [(p, c, LOAD) for p, c in segments]:
        size = len(content) if memory_size is None or type_ == NOTE else memory_size
        programs += struct.pack("<IIQQQQQQ", type_, 0, start + len(body), physical, physical, len(content), size, 0)
        body += content
    extra = bytes(44) + struct.pack("<I", count) + bytes(16) if xnum else b""
    return header + programs + extra + body
