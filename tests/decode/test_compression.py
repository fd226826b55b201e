import bz2
import contextlib
import gzip
import lzma
import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError
from hypervigil.decode.compression import compression_of, decompress, each_chunk

PLAIN = b"kvm_vcpu_ioctl " * 200_000
LZ4 = b"\x02\x21\x4c\x18"


def _lz4(*blocks: bytes) -> bytes:
    return LZ4 + b"".join(struct.pack("<I", len(block)) + block for block in blocks)


STREAMS = {
    "gzip": gzip.compress(PLAIN, 1),
    "xz": lzma.compress(PLAIN, preset=0),
    "lzma": lzma.compress(PLAIN, format=lzma.FORMAT_ALONE, preset=0),
    "bzip2": bz2.compress(PLAIN, 1),
    "zstd": zstandard.ZstdCompressor(1).compress(PLAIN),
}


@pytest.mark.parametrize("name", STREAMS)
def test_each_format_is_recognised_and_gives_all_bytes(name: str) -> None:
    stream = memoryview(STREAMS[name] + b"\x40\xaa\x02\x07")  # kernels append the length
    assert compression_of(stream) == name
    assert decompress(stream, len(PLAIN)) == PLAIN


@pytest.mark.parametrize("name", STREAMS)
def test_more_than_the_limit_is_refused_before_it_is_made(name: str) -> None:
    chunks = each_chunk(memoryview(STREAMS[name]), 2 << 20)
    with pytest.raises(DecodeError, match="more than 2097152 bytes"):
        list(chunks)


@pytest.mark.parametrize("name", STREAMS)
def test_a_cut_stream_is_refused(name: str) -> None:
    stream = STREAMS[name]
    with pytest.raises(DecodeError, match=name):
        decompress(memoryview(stream[: len(stream) // 2]), 1 << 30)


def test_zstd_frames_in_a_row_are_one_stream() -> None:
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(b"one")
    assert decompress(memoryview(frame + frame + b"tail"), 100) == b"oneone"


def test_an_unknown_stream_is_named_by_its_bytes() -> None:
    assert compression_of(memoryview(b"plain text")) == ""
    with pytest.raises(DecodeError, match="706c61696e20"):
        decompress(memoryview(b"plain text"), 100)


def test_lz4_literals_matches_and_long_lengths() -> None:
    overlapping = bytes([0x1F]) + b"a" + struct.pack("<H", 1) + bytes([255, 10]) + bytes([0x10]) + b"z"
    apart = bytes([0x42]) + b"abcd" + struct.pack("<H", 4) + bytes([0xF0, 5]) + b"-" * 20
    assert decompress(memoryview(_lz4(overlapping, apart)), 1000) == b"a" * 285 + b"z" + b"abcdabcdab" + b"-" * 20


def test_lz4_ends_at_the_appended_length() -> None:
    assert decompress(memoryview(_lz4(b"\x50hello") + struct.pack("<I", 5)), 100) == b"hello"


@pytest.mark.parametrize(
    "block",
    [
        b"\x10",
        b"\xf0",
        b"\xf0\xff",
        b"\x50he",
        b"\x10a\x02\x00",
        b"\x10a\x00\x00",
        b"\x10a\x01",
        b"\x1fa\x01\x00" + b"\xff" * 40_000 + b"\x00",
    ],
)
def test_damaged_lz4_blocks_are_refused(block: bytes) -> None:
    with pytest.raises(DecodeError, match="lz4"):
        decompress(memoryview(_lz4(block)), 1 << 30)


@given(st.sampled_from([*(stream[:6] for stream in STREAMS.values()), LZ4]), st.binary(max_size=200))
def test_any_bytes_end_within_the_limit(head: bytes, tail: bytes) -> None:
    with contextlib.suppress(DecodeError):
        assert len(decompress(memoryview(head + tail), 1 << 24)) <= 1 << 24


@given(st.sampled_from(sorted(STREAMS)), st.integers(0, 1 << 20), st.integers(0, 255))
def test_damaged_streams_give_bytes_or_a_reason(name: str, place: int, value: int) -> None:
    stream = bytearray(STREAMS[name])
    stream[place % len(stream)] = value
    with contextlib.suppress(DecodeError):
        assert len(decompress(memoryview(stream), 8 << 20)) <= 8 << 20
