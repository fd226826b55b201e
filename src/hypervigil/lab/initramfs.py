"""Writes the initial file system of an emulated host: busybox, the range's own small programs, kernel modules.

Source: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel (the "newc" cpio format).
"""

import gzip
import stat
from collections.abc import Iterable

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """A file or directory: `mode` has the type bits of stat(2)."""

    path: str
    mode: int
    data: bytes = b""


def directory(path: str) -> Entry:
    """A directory that its owner can write."""
    return Entry(path, stat.S_IFDIR | 0o755)


def program(path: str, data: bytes) -> Entry:
    """An executable file."""
    return Entry(path, stat.S_IFREG | 0o755, data)


def plain(path: str, data: bytes) -> Entry:
    """A file of data."""
    return Entry(path, stat.S_IFREG | 0o644, data)


def write_initramfs(entries: Iterable[Entry]) -> bytes:
    """A gzip-compressed cpio archive of `entries`, the same bytes for the same entries."""
    parts = [_record(inode, entry) for inode, entry in enumerate(entries, start=1)]
    parts.append(_record(0, Entry("TRAILER!!!", 0)))
    return gzip.compress(b"".join(parts), compresslevel=1, mtime=0)


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(f"{field:08x}".encode() for field in fields) + name
    return _padded(head) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
