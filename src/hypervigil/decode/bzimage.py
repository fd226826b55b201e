"""The kernel inside of a bzImage (`vmlinuz`), without running anything of it.

Sources: Linux Documentation/arch/x86/boot.rst (setup header; payload_offset and payload_length since protocol 2.08)
and arch/x86/boot/compressed/Makefile: the payload is the stripped vmlinux, followed by relocations where the kernel
can be moved, compressed as a whole; all compressions but gzip have the length of the output appended in 4 bytes.
"""

import struct

import msgspec

from hypervigil.core.errors import DecodeError
from hypervigil.decode.compression import compression_of, decompress

MAX_KERNEL = 1 << 29
"""Bytes of a decompressed kernel that are believed; Debian's have some 70 MiB, a debug one 200."""

_SETUP_SECTORS = 0x1F1
_BOOT_FLAG = 0x1FE
_MAGIC = 0x202
_VERSION = 0x206
_KERNEL_VERSION = 0x20E
_PAYLOAD = 0x248
_HEADER_END = 0x268
_SECTOR = 512
_DEFAULT_SECTORS = 4
_MIN_VERSION = 0x0208
_MAX_BANNER = 512


class BzImage(msgspec.Struct, frozen=True):
    """What the setup header says.

    Attributes:
        protocol: boot protocol, such as 0x20F for 2.15.
        banner: the kernel's own version string, empty if there is none.
        compression: of the payload: gzip, xz, lzma, zstd, bzip2, lz4.
        payload: half-open file range of the compressed kernel.
    """

    protocol: int
    banner: str
    compression: str
    payload: tuple[int, int]


def decode_bzimage(data: memoryview) -> BzImage:
    """Decode the setup header.

    Args:
        data: the whole file.

    Raises:
        DecodeError: no bzImage, one older than protocol 2.08, or a payload that is outside or of no known compression.
    """
    if len(data) < _HEADER_END or bytes(data[_BOOT_FLAG : _BOOT_FLAG + 2]) != b"\x55\xaa":
        raise DecodeError("bzimage", "no boot sector", 0)
    if bytes(data[_MAGIC : _MAGIC + 4]) != b"HdrS":
        raise DecodeError("bzimage", "no setup header", _MAGIC)
    (protocol,) = struct.unpack_from("<H", data, _VERSION)
    if protocol < _MIN_VERSION:
        raise DecodeError(
            "bzimage", f"boot protocol {protocol >> 8}.{protocol & 0xFF:02} has no payload field", _VERSION
        )
    start_of_code = ((data[_SETUP_SECTORS] or _DEFAULT_SECTORS) + 1) * _SECTOR
    offset, length = struct.unpack_from("<II", data, _PAYLOAD)
    start = start_of_code + offset
    end = start + length
    if not start < end <= len(data):
        raise DecodeError("bzimage", f"payload {start:#x} to {end:#x} is outside of the file", _PAYLOAD)
    compression = compression_of(data[start:end])
    if not compression:
        raise DecodeError("bzimage", f"payload begins with {bytes(data[start : start + 4]).hex()}", start)
    return BzImage(protocol, _banner(data), compression, (start, end))


def extract_vmlinux(data: memoryview, limit: int = MAX_KERNEL) -> bytes:
    """Decompress the kernel: an ELF file without symbols, with the boot relocations after its end.

    Args:
        data: the whole bzImage.
        limit: most bytes that may come out.

    Raises:
        DecodeError: as `decode_bzimage`, a damaged payload, one that is too large, or no ELF file inside.
    """
    image = decode_bzimage(data)
    kernel = decompress(data[slice(*image.payload)], limit)
    if not kernel.startswith(b"\x7fELF"):
        raise DecodeError("bzimage", f"the payload holds no ELF file but {kernel[:4].hex()}", image.payload[0])
    return kernel


def _banner(data: memoryview) -> str:
    (pointer,) = struct.unpack_from("<H", data, _KERNEL_VERSION)
    if not pointer:
        return ""
    raw = bytes(data[pointer + _SECTOR : pointer + _SECTOR + _MAX_BANNER])
    return raw.split(b"\0", 1)[0].decode("latin-1")
