from pathlib import Path

import pytest

from hypervigil.core.errors import MissingMemory, UsageError
from hypervigil.core.units import PhysAddr, VirtAddr
from hypervigil.lab.memory import NX, GuestMemory
from tests.lab.fakes import HEAP, KERNEL, Ram, fake_machine, gdb_server


def test_a_virtual_address_is_translated_by_the_page_tables(tmp_path: Path) -> None:
    ram = Ram(tmp_path / "ram")
    ram.page(KERNEL, b"text", executable=True)
    ram.page(VirtAddr(KERNEL + 0x1000), b"more")
    memory = ram.memory()
    assert memory.read(KERNEL, 4) == b"text"
    assert memory.read(VirtAddr(KERNEL + 0xFFE), 4) == b"\0\0mo"
    assert memory.entry(KERNEL)[1] & NX == 0
    assert memory.entry(VirtAddr(KERNEL + 0x1000))[1] & NX
    assert memory.translate(VirtAddr(HEAP + 0x1234)) == 0x1234


def test_large_pages_are_one_leaf(tmp_path: Path) -> None:
    ram = Ram(tmp_path / "ram")
    where = ram._below(ram._below(0x1000 + 8 * 511) + 8 * 510) + 8 * 8
    ram.data[where : where + 8] = (0x83).to_bytes(8, "little")
    memory = ram.memory()
    assert memory.entry(KERNEL) == (where, 0x83, 1 << 21)
    assert memory.translate(VirtAddr(KERNEL + 0x2345)) == 0x2345
    assert list(memory.each_leaf(VirtAddr(KERNEL - 0x1000), VirtAddr(KERNEL + 0x3000))) == [(KERNEL, 0x83, 1 << 21)]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    memory = Ram(tmp_path / "ram").memory()
    with pytest.raises(MissingMemory, match="not mapped"):
        memory.read(KERNEL, 8)
    with pytest.raises(MissingMemory, match="outside"):
        memory.physical(PhysAddr(memory.size - 4), 8)
    memory.root = None
    with pytest.raises(MissingMemory, match="not known yet"):
        memory.read(HEAP, 8)


def test_matches_are_aligned(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(b"12345678" + b"needle".rjust(9) + b"\0" * 7 + b"needle" + b"\0" * 4066)
    memory = GuestMemory(path, tmp_path / "gdb")
    assert list(memory.each_match(b"needle")) == [24]
    assert list(memory.each_match(b"needle", step=1)) == [11, 24]


def test_a_write_across_pages_goes_to_both(tmp_path: Path) -> None:
    ram = Ram(tmp_path / "ram")
    ram.page(KERNEL)
    ram.page(VirtAddr(KERNEL + 0x1000))
    memory = ram.memory()
    with gdb_server(tmp_path / "ram") as seen:
        memory.write(VirtAddr(KERNEL + 0xFFE), b"abcd")
    assert memory.read(VirtAddr(KERNEL + 0xFFE), 4) == b"abcd"
    assert [packet[:1] for packet in seen] == ["Q", "M", "M", "D"]


def test_nothing_is_written_where_the_host_changed_a_byte(tmp_path: Path) -> None:
    ram = Ram(tmp_path / "ram")
    ram.page(KERNEL, b"now")
    with fake_machine(ram, []) as machine:
        with pytest.raises(UsageError, match="changed meanwhile"):
            machine.memory.write_all([(HEAP, b"\0", b"1"), (KERNEL, b"old", b"new")])
        assert machine.memory.read(KERNEL, 3) == b"now"
        assert machine.memory.read(HEAP, 1) == b"\0"
