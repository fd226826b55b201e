"""Images that an attacker might hand over: a sound one with pages that judging reads changed at random.

Every page that a clean run reads is a candidate. Deterministic by seed.
"""

import random
from collections.abc import Iterator

from hypervigil.core.evidence import Span
from hypervigil.core.facts import Gap
from hypervigil.core.units import PAGE_SIZE, PhysAddr
from hypervigil.decode.cpustate import CpuState
from hypervigil.memory.reader import PhysRange, Reader

_KERNEL_HALF = 1 << 63


class Watched:
    """A reader that remembers which pages were read."""

    def __init__(self, inner: Reader) -> None:
        self._inner = inner
        self.reads = 0
        self.pages: set[int] = set()
        self.evidence = inner.evidence
        self.format = inner.format
        self.ranges: tuple[PhysRange, ...] = inner.ranges
        self.zero_is_missing = inner.zero_is_missing
        self.registers: tuple[CpuState, ...] = inner.registers
        self.vmcoreinfo: bytes | None = inner.vmcoreinfo
        self.gaps: tuple[Gap, ...] = inner.gaps

    def read(self, address: PhysAddr, size: int) -> bytes:
        self.reads += 1
        if size > 0:
            first = address // PAGE_SIZE
            self.pages.update(range(first, min((address + size - 1) // PAGE_SIZE, first + 64) + 1))
        return self._inner.read(address, size)

    def view(self, address: PhysAddr, size: int) -> memoryview:
        return memoryview(self.read(address, size))

    def each_run(self) -> Iterator[tuple[PhysAddr, memoryview]]:
        yield from self._inner.each_run()

    def spans(self, address: PhysAddr, size: int) -> tuple[Span, ...]:
        return self._inner.spans(address, size)


class Changed(Watched):
    """A reader over another one with some pages replaced."""

    def __init__(self, inner: Reader, changes: dict[int, bytes]) -> None:
        super().__init__(inner)
        self._changes = changes

    def read(self, address: PhysAddr, size: int) -> bytes:
        self.reads += 1
        data = self._inner.read(address, size)
        if size <= 0:
            return data
        touched = range(address // PAGE_SIZE, (address + size - 1) // PAGE_SIZE + 1)
        hit = (
            self._changes.keys() & touched if len(touched) > len(self._changes) else set(touched) & self._changes.keys()
        )
        if not hit:
            return data
        changed = bytearray(data)
        for page in hit:
            start = page * PAGE_SIZE
            low, high = max(start, address), min(start + PAGE_SIZE, address + size)
            changed[low - address : high - address] = self._changes[page][low - start : high - start]
        return bytes(changed)


def mutate(inner: Reader, pages: list[int], seed: int) -> Changed:
    """Change one to eight of `pages`, each in one of the ways below."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    changes = {}
    for page in chance.sample(pages, chance.randint(1, 8)):
        data = bytearray(inner.read(PhysAddr(page * PAGE_SIZE), PAGE_SIZE))
        chance.choice((_noise, _zero, _ones, _self_pointing, _huge_counts, _swapped_pointers, _flipped_bits))(
            data, chance
        )
        changes[page] = bytes(data)
    return Changed(inner, changes)


def _noise(data: bytearray, chance: random.Random) -> None:
    data[:] = chance.randbytes(len(data))


def _zero(data: bytearray, _chance: random.Random) -> None:
    data[:] = bytes(len(data))


def _ones(data: bytearray, _chance: random.Random) -> None:
    data[:] = b"\xff" * len(data)


def _flipped_bits(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 64)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _words(data: bytearray) -> list[tuple[int, int]]:
    return [(at, int.from_bytes(data[at : at + 8], "little")) for at in range(0, len(data), 8)]


def _pointers(data: bytearray) -> list[tuple[int, int]]:
    return [(at, value) for at, value in _words(data) if value >= _KERNEL_HALF]


def _self_pointing(data: bytearray, chance: random.Random) -> None:
    """Every pointer leads to one and the same place, so that lists turn in circles."""
    pointers = _pointers(data)
    if pointers:
        target = chance.choice(pointers)[1]
        for at, _ in pointers:
            data[at : at + 8] = target.to_bytes(8, "little")


def _swapped_pointers(data: bytearray, chance: random.Random) -> None:
    pointers = _pointers(data)
    values = [value for _, value in pointers]
    chance.shuffle(values)
    for (at, _), value in zip(pointers, values, strict=True):
        data[at : at + 8] = value.to_bytes(8, "little")


def _huge_counts(data: bytearray, chance: random.Random) -> None:
    """Small numbers become 2**63, 2**32 - 1 or the like."""
    small = [at for at, value in _words(data) if 0 < value < 1 << 20]
    for at in chance.sample(small, min(len(small), 16)):
        data[at : at + 8] = chance.choice((1 << 63, (1 << 64) - 1, (1 << 32) - 1, 1 << 31)).to_bytes(8, "little")
