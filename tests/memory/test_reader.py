import pytest

from hypervigil.core.errors import MissingMemory
from hypervigil.core.units import PhysAddr
from hypervigil.memory.reader import PhysRange, require_present

RANGES = tuple(
    PhysRange(PhysAddr(start), PhysAddr(end)) for start, end in [(0x1000, 0x2000), (0x2000, 0x3000), (0x8000, 0x9000)]
)


@pytest.mark.parametrize(("address", "size"), [(0x1000, 0x2000), (0x1FFF, 2), (0x8000, 0), (0x0, 0)])
def test_what_is_there_is_there(address: int, size: int) -> None:
    require_present(RANGES, address, size)


@pytest.mark.parametrize(
    ("address", "size", "first"),
    [(0xFFF, 1, 0xFFF), (0x2FFF, 2, 0x3000), (0x8FFF, 1 << 62, 0x9000), (0x9000, 1, 0x9000), (0x1000, -5, 0x1000)],
)
def test_the_first_missing_address_is_named(address: int, size: int, first: int) -> None:
    with pytest.raises(MissingMemory) as fault:
        require_present(RANGES, address, size)
    assert fault.value.address == first


def test_a_range_has_a_size() -> None:
    assert RANGES[0].size == 0x1000
