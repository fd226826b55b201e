"""Opening a memory image or a recording: the format is told by its content, and what is not read is refused by name.

Sources of the signatures: makedumpfile's diskdump_mod.h, QEMU docs/interop/qcow2.txt and migration/qemu-file.h,
libvirt src/qemu/qemu_saveimage.h, VMware's Virtual Disk Format 5.0, Microsoft's DUMP_HEADER64, and what is common
knowledge of the rest. A raw image of another architecture or system has no signature: finding no kernel in it is for
the caller to report.
"""

import os
from typing import TYPE_CHECKING

from hypervigil.core.errors import DecodeError, UnsupportedEvidence, UsageError
from hypervigil.decode.compression import compression_of
from hypervigil.memory.elfcore import read_elf_core
from hypervigil.memory.lime import read_lime
from hypervigil.memory.mapped import map_descriptor
from hypervigil.memory.raw import read_raw
from hypervigil.memory.reader import Reader
from hypervigil.memory.recording import ReplayReader

if TYPE_CHECKING:
    from collections.abc import Callable

_AS_ELF = "dump it as ELF: QMP dump-guest-memory without a format, virsh dump --memory-only, or makedumpfile -E"
_AS_RAW = "convert it to a raw image, or take the memory again with LiME or QMP dump-guest-memory"
_A_DISK = "a disk is not memory; give a memory image of the host"
_WINDOWS = "only memory of Linux hosts with KVM is read"

_FORMATS: "tuple[tuple[bytes, Callable[[memoryview, str], Reader]], ...]" = (
    (b"EMiL", read_lime),
    (b"\x7fELF", read_elf_core),
    (b"HVRECORD", ReplayReader),
)
_REFUSED = (
    (b"KDUMP   ", "a kdump-compressed dump (makedumpfile, or QEMU's kdump-zlib)", _AS_ELF),
    (b"DISKDUMP", "a diskdump", _AS_ELF),
    (
        b"makedumpfile\0",
        "a flattened dump (makedumpfile, or QEMU's kdump-zlib)",
        "rearrange it with makedumpfile -R, and " + _AS_ELF,
    ),
    (b"PAGEDU64", "a Windows crash dump", _WINDOWS),
    (b"PAGEDUMP", "a Windows crash dump", _WINDOWS),
    (b"MDMP", "a Windows minidump", _WINDOWS),
    (b"hibr", "a Windows hibernation file", _WINDOWS),
    (b"HIBR", "a Windows hibernation file", _WINDOWS),
    (b"wake", "a Windows hibernation file", _WINDOWS),
    (b"WAKE", "a Windows hibernation file", _WINDOWS),
    (b"RSTR", "a Windows hibernation file", _WINDOWS),
    (b"\xd0\xbe\xd2\xbe", "VMware suspended state (.vmss, .vmsn)", "convert it with vmss2core, and " + _AS_ELF),
    (b"\xd1\xba\xd1\xba", "VMware suspended state (.vmss, .vmsn)", "convert it with vmss2core, and " + _AS_ELF),
    (b"\xd2\xbe\xd2\xbe", "VMware suspended state (.vmss, .vmsn)", "convert it with vmss2core, and " + _AS_ELF),
    (b"\xd3\xbe\xd3\xbe", "VMware suspended state (.vmss, .vmsn)", "convert it with vmss2core, and " + _AS_ELF),
    (b"QEVM", "a migration stream of QEMU", "restore the machine and " + _AS_ELF),
    (b"LibvirtQemud", "a saved machine of libvirt", "restore the machine and " + _AS_ELF),
    (b"LinuxGuestRecord", "a saved domain of Xen", _AS_RAW),
    (b"\xff" * 8 + b"XENF", "a saved domain of Xen", _AS_RAW),
    (b"QFI\xfb", "a qcow2 disk", _A_DISK),
    (b"KDMV", "a VMDK disk", _A_DISK),
    (b"COWD", "a VMDK disk", _A_DISK),
    (b"# Disk DescriptorFile", "a VMDK descriptor", _A_DISK),
    (b"vhdxfile", "a VHDX disk", _A_DISK),
    (b"conectix", "a VHD disk", _A_DISK),
    (b"EVF\x09\x0d\x0a\xff\0", "an EnCase image", _AS_RAW),
    (b"PK\x03\x04", "a zip archive (AFF4, or packed)", "unpack it first"),
)
_LONGEST = 32


def open_image(path: str, evidence: str = "memory") -> Reader:
    """Open a file or block device as physical memory.

    Args:
        path: where it is.
        evidence: id that spans will carry.

    Raises:
        UsageError: it cannot be opened, or is neither a file nor a block device.
        UnsupportedEvidence: a format, machine or system that is not read, named, with what to do instead.
        DecodeError: a format that is read, damaged beyond use.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as fault:
        raise UsageError(f"{path}: {(fault.strerror or str(fault)).lower()}") from fault
    try:
        return _image_behind(descriptor, evidence, vmware=path.lower().endswith(".vmem"))
    except DecodeError as fault:
        raise DecodeError(f"{path}: {fault.what}", fault.reason, fault.offset) from fault
    except (UsageError, UnsupportedEvidence) as fault:
        raise type(fault)(f"{path}: {fault}") from fault
    finally:
        os.close(descriptor)


def _image_behind(descriptor: int, evidence: str, *, vmware: bool) -> Reader:
    buffer = map_descriptor(descriptor)
    if vmware:
        raise UnsupportedEvidence(
            "memory of a VMware machine without its layout (.vmem); "
            "convert it with vmss2core, or rename it to .raw if the machine has less than 3 GiB"
        )
    return read_image(buffer, evidence)


def read_image(buffer: memoryview, evidence: str = "memory") -> Reader:
    """Take a buffer as an image of whatever format its first bytes tell; raw if they tell nothing.

    Raises:
        UnsupportedEvidence: a format that is not read, or an empty file.
        DecodeError: a format that is read, damaged beyond use.
    """
    head = bytes(buffer[:_LONGEST])
    if not head:
        raise UnsupportedEvidence("an empty file: there is no memory in it")
    for magic, read in _FORMATS:
        if head.startswith(magic):
            return read(buffer, evidence)
    for magic, name, advice in _REFUSED:
        if head.startswith(magic):
            raise UnsupportedEvidence(f"{name}: {advice}")
    packed = compression_of(buffer)
    if packed and packed != "lzma":  # lzma has no magic worth the name
        raise UnsupportedEvidence(f"a file packed with {packed}: unpack it first")
    return read_raw(buffer, evidence)
