"""Files that a user gives to compare with: Debian packages, kernels, modules, type information.

A kernel's package holds ``boot/vmlinuz-RELEASE`` or ``usr/lib/modules/RELEASE/vmlinuz``, and modules below
``lib/modules``, plain or compressed one by one. Newer Debian packages split the two (linux-binary-*, linux-modules-*):
each gives what it has. A package of debug information has ``usr/lib/debug/boot/vmlinux-RELEASE``. What a file is
follows from its first bytes.
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from hypervigil.core.errors import UnsupportedEvidence
from hypervigil.decode.btf import Btf
from hypervigil.decode.bzimage import extract_vmlinux
from hypervigil.decode.compression import compression_of, decompress
from hypervigil.decode.deb import deb_control, each_deb_member
from hypervigil.linux.vendor.elf import RELOCATABLE, ElfFile

KERNEL_FILE = "kernel"
"""The name under which a kernel is given; modules have their own names."""

MAX_MODULE = 1 << 27
"""Bytes of one module's file; the largest have some 10 MiB, with debug information ten times that."""

_PACKED = ("xz", "zstd", "gzip")
"""How modules are packed one by one (CONFIG_MODULE_COMPRESS_*)."""

_AR, _ELF, _BTF = b"!<arch>\n", b"\x7fELF", b"\x9f\xeb\x01\x00"
_SETUP, _HDRS = 0x202, b"HdrS"
_MODULE = re.compile(r"(?:^|/)([^/]+)\.ko(?:\.(?:xz|zst|gz))?$")
_KERNEL = re.compile(
    r"^(?:boot/vmlinuz-[^/]+|(?:usr/)?lib/modules/[^/]+/vmlinuz|usr/lib/debug/(?:boot/|lib/modules/[^/]+/)vmlinux[^/]*)$"
)


class Kind(StrEnum):
    """What a file is."""

    PACKAGE = "package/deb"
    VMLINUZ = "kernel/vmlinuz"
    VMLINUX = "kernel/vmlinux"
    MODULE = "module/ko"
    TYPES = "types/btf"


class Source(NamedTuple):
    """A recognised file.

    Attributes:
        kind: what it is.
        name: its name without its folder.
        label: what to call it in words: a package by its name and version, others by their file's name.
        data: its bytes, packed as they are.
    """

    kind: Kind
    name: str
    label: str
    data: memoryview


def recognise(name: str, data: memoryview) -> Source:
    """Tell what a file is by its first bytes; of a packed one, by the first that come out.

    Raises:
        UnsupportedEvidence: it is none of the known kinds.
        DecodeError: it is one, and damaged.
    """
    head = bytes(data[:8])
    if head == _AR:
        fields = deb_control(data)
        return Source(Kind.PACKAGE, name, f"{fields.get('Package', name)} {fields.get('Version', '')}".strip(), data)
    if head.startswith(_ELF):
        kind = Kind.MODULE if ElfFile(data).kind == RELOCATABLE else Kind.VMLINUX
        return Source(kind, name, name, data)
    if bytes(data[_SETUP : _SETUP + 4]) == _HDRS:
        return Source(Kind.VMLINUZ, name, name, data)
    if head.startswith(_BTF):
        Btf(data)
        return Source(Kind.TYPES, name, name, data)
    if compression_of(data) in _PACKED:
        kind = Kind.MODULE if ElfFile(_unpacked(data)).kind == RELOCATABLE else Kind.VMLINUX
        return Source(kind, name, name, data)
    raise UnsupportedEvidence(f"{name}: neither a Debian package nor a kernel, a module or type information")


def each_object(source: Source, modules: frozenset[str]) -> Iterator[tuple[str, memoryview]]:
    """``(KERNEL_FILE or a module's name, its ELF file)`` of every wanted object in a file.

    A package is read once, as a stream; only one object is kept at a time.

    Args:
        source: the file.
        modules: names of the modules that are wanted, as the kernel writes them.

    Raises:
        DecodeError: it is damaged.
    """
    if source.kind is Kind.PACKAGE:
        yield from _in_package(source, modules)
    elif source.kind is Kind.VMLINUZ:
        yield KERNEL_FILE, memoryview(extract_vmlinux(source.data))
    elif source.kind is Kind.VMLINUX:
        yield KERNEL_FILE, _unpacked(source.data)
    elif source.kind is Kind.MODULE:
        name = module_name(source.name)
        if name in modules:
            yield name, _unpacked(source.data)


def _in_package(source: Source, modules: frozenset[str]) -> Iterator[tuple[str, memoryview]]:
    def wanted(path: str) -> bool:
        return module_name(path) in modules or _KERNEL.match(path) is not None

    for member in each_deb_member(source.data, wanted):
        data = memoryview(member.content)
        if bytes(data[:4]) == _ELF and not module_name(member.name):
            yield KERNEL_FILE, data
        elif not module_name(member.name):
            yield KERNEL_FILE, memoryview(extract_vmlinux(data))
        else:
            yield module_name(member.name), _unpacked(data)


def _unpacked(data: memoryview) -> memoryview:
    """A file as it is, or what comes out of it if it is packed.

    Raises:
        DecodeError: it is damaged, or larger than `MAX_MODULE`.
    """
    packed = compression_of(data) and bytes(data[:4]) != _ELF
    return memoryview(decompress(data, MAX_MODULE)) if packed else data


def module_name(path: str) -> str:
    """The name that the kernel gives to the module in a file; empty for another kind of file."""
    found = _MODULE.search(path)
    return "" if found is None else found[1].replace("-", "_")
