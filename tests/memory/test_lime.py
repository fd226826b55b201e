import pytest

from hypervigil.core.errors import DecodeError
from hypervigil.core.units import PhysAddr
from hypervigil.memory.lime import read_lime
from tests.decode.test_lime import lime


def test_every_range_is_memory_and_zeros_are_zeros() -> None:
    memory = read_lime(memoryview(lime((0x1000, bytes(16)), (0x9000, b"b" * 8))), "image")
    assert (memory.format, memory.zero_is_missing) == ("lime", False)
    assert [(r.start, r.end) for r in memory.ranges] == [(0x1000, 0x1010), (0x9000, 0x9008)]
    assert memory.read(PhysAddr(0x1000), 16) == bytes(16)


def test_without_one_whole_header_it_is_no_lime_file() -> None:
    with pytest.raises(DecodeError, match="lime header"):
        read_lime(memoryview(lime((0, b"a"))[:20]), "image")


def test_damage_behind_the_first_range_is_a_gap() -> None:
    memory = read_lime(memoryview(lime((0x1000, b"a" * 16), (0x5000, b"b")) + b"junk" * 8), "image")
    assert [gap.what for gap in memory.gaps] == ["ranges after physical 0x5001"]
