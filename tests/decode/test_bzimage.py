import contextlib
import gzip
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError
from hypervigil.decode.bzimage import decode_bzimage, extract_vmlinux

KERNEL = b"\x7fELF" + b"kernel" * 100


def bzimage(payload: bytes, *, protocol: int = 0x20F, sectors: int = 1) -> bytearray:
    image = bytearray((1 + (sectors or 4)) * 512)
    image[0x1F1] = sectors
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, protocol)
    struct.pack_into("<H", image, 0x20E, 0x100)
    image[0x300:0x30C] = b"6.1.0 (x) #1"
    struct.pack_into("<II", image, 0x248, 16, len(payload))
    return image + bytes(16) + payload


@pytest.mark.parametrize("sectors", [0, 1, 27])
def test_the_kernel_comes_out(sectors: int) -> None:
    data = memoryview(bzimage(gzip.compress(KERNEL), sectors=sectors))
    image = decode_bzimage(data)
    assert (image.protocol, image.banner, image.compression) == (0x20F, "6.1.0 (x) #1", "gzip")
    assert extract_vmlinux(data) == KERNEL


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0x1FE, b"\0\0", "no boot sector"),
        (0x202, b"HdrX", "no setup header"),
        (0x206, b"\x07\x02", "2.07 has no payload field"),
        (0x248, b"\xff\xff\xff\xff", "outside of the file"),
        (0x24C, b"\0\0\0\0", "outside of the file"),
        (0x248, b"\0\0\0\0", "payload begins with 00000000"),
    ],
)
def test_what_is_no_bzimage_is_refused_with_its_place(offset: int, value: bytes, reason: str) -> None:
    data = bzimage(gzip.compress(KERNEL))
    data[offset : offset + len(value)] = value
    with pytest.raises(DecodeError, match=reason):
        extract_vmlinux(memoryview(data))


def test_a_payload_that_is_no_kernel_or_too_large_is_refused() -> None:
    with pytest.raises(DecodeError, match="no ELF file"):
        extract_vmlinux(memoryview(bzimage(gzip.compress(b"MZ" * 9))))
    with pytest.raises(DecodeError, match="more than 100 bytes"):
        extract_vmlinux(memoryview(bzimage(gzip.compress(KERNEL))), limit=100)


@given(st.integers(0x1F0, 0x2FF), st.integers(0, 255))
def test_any_header_gives_a_kernel_or_a_reason(place: int, value: int) -> None:
    data = bzimage(gzip.compress(KERNEL))
    data[place] = value
    with contextlib.suppress(DecodeError):
        assert extract_vmlinux(memoryview(data)).startswith(b"\x7fELF")
