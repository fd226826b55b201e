"""Saves a machine's memory: raw, ELF core or LiME, sparse or compressed."""

import os
import struct
import subprocess
from enum import StrEnum
from pathlib import Path

import zstandard

from hypervigil.core.units import PAGE_SIZE
from hypervigil.lab.qmp import Qmp

_LIME = struct.Struct("<IIQQ8x")
_LIME_MAGIC = 0x4C694D45
_BLOCK = 1 << 20


class Format(StrEnum):
    """How an image is laid out.

    `raw` is RAM from physical address 0; `elf` is QEMU's dump-guest-memory, with registers in notes; `paging.elf` the
    same with virtual addresses; `lime` one LiME range (LiME, doc/README.md, "Spec").
    """

    RAW = "raw"
    ELF = "elf"
    ELF_PAGING = "paging.elf"
    LIME = "lime"


def save(qmp: Qmp, ram: Path, path: Path, form: Format) -> None:
    """Writes the machine's memory to `path`, which appears only when it is complete.

    Zero pages of raw and LiME images are holes. The machine should stand still.

    Args:
        qmp: the machine's QMP connection.
        ram: the file that is its memory.
        path: where the image goes.
        form: its layout.
    """
    partial = path.with_name(path.name + ".partial")
    if form in {Format.ELF, Format.ELF_PAGING}:
        protocol = f"file:{partial}"
        qmp.execute("dump-guest-memory", paging=form is Format.ELF_PAGING, protocol=protocol)
        partial.chmod(0o644)
        subprocess.run(["fallocate", "--dig-holes", str(partial)], check=False, capture_output=True)  # noqa: S603, S607 - only saves room
    else:
        size = ram.stat().st_size
        head = _LIME.pack(_LIME_MAGIC, 1, 0, size - 1) if form is Format.LIME else b""
        write_sparse(ram, partial, head)
    partial.replace(path)


def write_sparse(source: Path, path: Path, head: bytes = b"") -> None:
    """Writes `head` and the content of a file to `path`, with holes where whole pages are zero."""
    with source.open("rb") as content, path.open("wb") as file:
        file.write(head)
        while block := content.read(_BLOCK):
            for at in range(0, len(block), PAGE_SIZE):
                page = block[at : at + PAGE_SIZE]
                if page.count(0) == len(page):
                    file.seek(len(page), os.SEEK_CUR)
                else:
                    file.write(page)
        file.truncate(file.tell())


def compress(path: Path, *, level: int = 3) -> Path:
    """Replaces a file with its zstd form and returns that path (`path`.zst)."""
    target = path.with_name(path.name + ".zst")
    partial = path.with_name(path.name + ".zst.partial")
    with path.open("rb") as source, partial.open("wb") as sink:
        zstandard.ZstdCompressor(level=level).copy_stream(source, sink, size=path.stat().st_size)
    partial.replace(target)
    path.unlink()
    return target


def decompress(path: Path, target: Path) -> None:
    """Writes the content of a zstd file to `target`, with holes where whole blocks are zero."""
    partial = target.with_name(target.name + ".partial")
    with path.open("rb") as source, partial.open("wb") as sink:
        for block in zstandard.ZstdDecompressor().read_to_iter(source, read_size=_BLOCK, write_size=_BLOCK):
            if any(block):
                sink.write(block)
            else:
                sink.seek(len(block), os.SEEK_CUR)
        sink.truncate(sink.tell())
    partial.replace(target)
