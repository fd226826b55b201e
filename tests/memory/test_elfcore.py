import pytest

from hypervigil.core.errors import UnsupportedEvidence
from hypervigil.core.units import PhysAddr
from hypervigil.memory.elfcore import read_elf_core
from tests.decode.elf_encoder import elf, note, qemu_state


def test_segments_are_memory_by_physical_address() -> None:
    memory = read_elf_core(memoryview(elf([(0x5000, b"b" * 8), (0x1000, b"a" * 8)])), "image")
    assert (memory.format, memory.zero_is_missing, memory.gaps) == ("elf", False, ())
    assert memory.read(PhysAddr(0x5000), 8) == b"b" * 8
    assert [r.start for r in memory.ranges] == [0x1000, 0x5000]


def test_a_segment_twice_is_one_memory_and_a_different_one_a_gap() -> None:
    same = read_elf_core(memoryview(elf([(0x1000, b"a" * 8), (0x1000, b"a" * 8)])), "image")
    assert (same.gaps, [r.size for r in same.ranges]) == ((), [8])
    other = read_elf_core(memoryview(elf([(0x1000, b"a" * 8), (0x1000, b"b" * 8)])), "image")
    assert [gap.why for gap in other.gaps] == ["two segments hold it and differ; the first is taken"]


def test_what_is_named_and_not_dumped_is_a_gap_and_not_zero() -> None:
    memory = read_elf_core(memoryview(elf([(0x1000, b"abcd")], memory_size=16)), "image")
    assert [str(gap) for gap in memory.gaps] == ["physical 0x1004 to 0x1010: the dump names it and does not hold it"]
    assert memory.ranges[0].end == 0x1004


def test_a_few_gaps_are_told_one_by_one_and_many_as_one() -> None:
    few = read_elf_core(memoryview(elf([(n << 12, b"abcd") for n in range(64)], memory_size=16)), "image")
    many = read_elf_core(memoryview(elf([(n << 12, b"abcd") for n in range(65)], memory_size=16)), "image")
    assert (len(few.gaps), len(many.gaps)) == (64, 1)
    assert many.gaps[0].what == f"{65 * 12} bytes in 65 places of physical memory"


@pytest.mark.parametrize("core", [elf([]), elf([(0x1000, b"")]), elf([(0x1000, b"")], memory_size=4096)])
def test_a_core_without_memory_is_refused(core: bytes) -> None:
    with pytest.raises(UnsupportedEvidence, match="without memory segments"):
        read_elf_core(memoryview(core), "image")


def test_a_damaged_note_costs_its_registers_and_is_told() -> None:
    sound = note(b"QEMU", 0, qemu_state(cr3=0xABC000))
    memory = read_elf_core(memoryview(elf([(0, b"a")], sound + note(b"QEMU", 0, b"short"))), "image")
    assert [cpu.cr3 for cpu in memory.registers] == [0xABC000]
    assert [gap.what for gap in memory.gaps] == ["notes of the core"]
