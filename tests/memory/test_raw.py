from hypervigil.core.evidence import Span
from hypervigil.core.units import PhysAddr
from hypervigil.memory.raw import read_raw


def test_byte_n_is_address_n_and_zeros_may_be_missing() -> None:
    memory = read_raw(memoryview(b"abcdef"), "image")
    assert (memory.format, memory.zero_is_missing, memory.evidence) == ("raw", True, "image")
    assert memory.read(PhysAddr(2), 3) == b"cde"
    assert memory.spans(PhysAddr(2), 3) == (Span("image", 2, 5),)
