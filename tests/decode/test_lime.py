import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError, UnsupportedEvidence
from hypervigil.decode.lime import LimeRange, each_lime_range


def lime(*ranges: tuple[int, bytes], version: int = 1) -> bytes:
    return b"".join(
        struct.pack("<4sIQQ8x", b"EMiL", version, first, first + len(content) - 1) + content
        for first, content in ranges
    )


def _ranges(data: bytes) -> list[LimeRange]:
    return list(each_lime_range(memoryview(data)))


def test_ranges_follow_one_another() -> None:
    found = _ranges(lime((0x1000, b"a" * 16), (0x100000, b"b" * 8)))
    assert [(r.physical, r.offset, r.size) for r in found] == [(0x1000, 32, 16), (0x100000, 80, 8)]


def test_a_range_may_reach_beyond_a_cut_file() -> None:
    (found,) = _ranges(lime((0x1000, b"a" * 16))[:40])
    assert (found.offset, found.size) == (32, 16)


def test_the_compressed_variant_is_refused_with_what_to_do() -> None:
    with pytest.raises(UnsupportedEvidence, match="avml-convert"):
        _ranges(lime((0, b"x"), version=2))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lime((0, b"x")) + b"garbage", "cut off"),
        (lime((0, b"x")) + bytes(32), "magic"),
        (lime((0, b"x"), version=7), "version 7"),
        (struct.pack("<4sIQQ8x", b"EMiL", 1, 8, 4), "range 0x8 to 0x4"),
        (struct.pack("<4sIQQ8x", b"EMiL", 1, 0, (1 << 64) - 1), "range"),
    ],
)
def test_malformed_headers_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        _ranges(data)


def test_no_bytes_are_no_ranges() -> None:
    assert _ranges(b"") == []


@given(st.lists(st.binary(min_size=0, max_size=40), max_size=5).map(b"EMiL\1\0\0\0".join))
def test_any_bytes_end(data: bytes) -> None:
    with contextlib.suppress(DecodeError, UnsupportedEvidence):
        assert all(r.size > 0 for r in _ranges(data))
