"""A live machine that is a small image in memory: it can change while it is read."""

from collections.abc import Iterator

from hypervigil.core.evidence import Span
from hypervigil.core.facts import Gap
from hypervigil.core.units import PhysAddr
from hypervigil.decode.cpustate import CpuState
from hypervigil.memory.open import read_image
from hypervigil.memory.reader import PhysRange


class LiveImage:
    """A `LiveReader` over bytes that a test may change meanwhile."""

    evidence = "memory"
    format = "live"
    zero_is_missing = False
    registers: tuple[CpuState, ...] = ()
    vmcoreinfo: bytes | None = None
    gaps: tuple[Gap, ...] = ()

    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.closed = False
        self.ranges: tuple[PhysRange, ...] = (PhysRange(PhysAddr(0), PhysAddr(len(data))),)

    def read(self, address: PhysAddr, size: int) -> bytes:
        return read_image(memoryview(bytes(self.data))).read(address, size)

    def look_again(self) -> None:
        """Nothing is kept."""

    def view(self, address: PhysAddr, size: int) -> memoryview:
        return memoryview(self.read(address, size))

    def each_run(self) -> Iterator[tuple[PhysAddr, memoryview]]:
        yield PhysAddr(0), memoryview(bytes(self.data))

    def spans(self, address: PhysAddr, size: int) -> tuple[Span, ...]:
        return (Span(self.evidence, address, address + size),)

    def disturbances(self) -> tuple[Gap, ...]:
        return (Gap("run state of the machine", "it went from running to paused while it was read"),)

    def close(self) -> None:
        self.closed = True
