import struct
from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.lab.btf import Btf, Member
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.plant.records import btf_member, kallsyms, vmcoreinfo
from hypervigil.lab.symbols import Symbol
from tests.lab.fakes import HEAP, KERNEL, Ram, fake_machine, pointers, sym

RODATA = VirtAddr(KERNEL + PAGE_SIZE)
TABLE = VirtAddr(KERNEL + 2 * PAGE_SIZE)
TARGET = 40


def names() -> list[Symbol]:
    """Functions at uneven distances, then what marks the places."""
    functions = [sym(f"f{number}", KERNEL + number * 16 + pow(7, number, 101) % 13) for number in range(100)]
    marks = [
        sym("_etext", KERNEL + 0xC00, "T"),
        sym("__start_rodata", RODATA, "D"),
        sym("__end_rodata", RODATA + 0x800, "D"),
        sym("__start_BTF", RODATA + 0x800, "R"),
        sym("sys_call_table", TABLE, "D"),
        sym("vmcoreinfo_data", TABLE + 16, "B"),
        sym("vmcoreinfo_note", TABLE + 24, "B"),
    ]
    return functions + marks


def layout(path: Path, offsets: list[int]) -> Ram:
    ram = Ram(path / "ram")
    ram.page(KERNEL, executable=True)
    ram.page(RODATA, (b"\1\2\3\4" * 3 + struct.pack(f"<{len(offsets)}i", *offsets)).ljust(0x804, b"\0") + b"\x40")
    ram.page(TABLE, pointers(0, names()[TARGET].address, HEAP + 0x60000, HEAP + 0x61000))
    note = b"OSRELEASE=6.1\nKERNELOFFSET=1c600000\nEND\n"
    ram.data[0x60000 : 0x60000 + len(note)] = note
    ram.data[0x61014 : 0x61014 + len(note)] = note
    return ram


def encoded(way: str) -> list[int]:
    addresses = [symbol.address for symbol in names()]
    if way == "from the base":
        return [address - KERNEL for address in addresses]
    if way == "below the base":
        return [KERNEL - 1 - address for address in addresses]
    return [address - (RODATA + 12 + 4 * number) for number, address in enumerate(addresses)]


def decoded(way: str, value: int, number: int) -> int:
    if way == "from the base":
        return KERNEL + value
    if way == "below the base":
        return KERNEL - 1 - value
    return RODATA + 12 + 4 * number + value


@pytest.mark.parametrize("way", ["from the base", "below the base", "from its own place"])
def test_the_symbol_table_calls_the_stub_by_the_functions_name(tmp_path: Path, way: str) -> None:
    with fake_machine(layout(tmp_path, encoded(way)), names()) as machine:
        planted = kallsyms(machine, table=["sys_call_table"], function=[f"f{TARGET}"])
        assert machine.memory.pointer(VirtAddr(TABLE + 8)) == planted.stub
        (value,) = struct.unpack("<i", machine.memory.read(VirtAddr(RODATA + 12 + 4 * TARGET), 4))
        assert decoded(way, value, TARGET) == planted.stub


def test_a_symbol_table_that_is_not_found_is_told(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path, [0] * 100), names()) as machine, pytest.raises(NotApplicable, match="not found"):
        kallsyms(machine, table=["sys_call_table"], function=[f"f{TARGET}"])


def test_both_copies_of_the_note_are_forged(tmp_path: Path) -> None:
    with fake_machine(layout(tmp_path, []), names()) as machine:
        changes = vmcoreinfo(machine, key="KERNELOFFSET", digits="00e00000").changes
        assert [bytes.fromhex(change.after) for change in changes] == [b"00e00000", b"00e00000"]
        assert machine.memory.read(VirtAddr(HEAP + 0x61014), 40) == b"OSRELEASE=6.1\nKERNELOFFSET=00e00000\nEND\n"
        with pytest.raises(NotApplicable, match="no NUMBER"):
            vmcoreinfo(machine, key="NUMBER", digits="1")


@pytest.mark.parametrize(("offset", "known"), [(8, True), (16, False)])
def test_a_member_is_moved_where_the_description_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, offset: int, known: bool
) -> None:
    monkeypatch.setattr(Btf, "member", lambda *_: Member(offset, 4))
    monkeypatch.setattr(Btf, "__init__", lambda *_: None)
    ram = layout(tmp_path, [])
    with fake_machine(ram, names()) as machine:
        if known:
            planted = btf_member(machine, structure="module", member="list", shift=8)
            assert machine.memory.read(VirtAddr(RODATA + 0x804), 4) == struct.pack("<I", 128)
            assert planted.values == {"offset": 8, "forged": 16}
        else:
            with pytest.raises(UsageError, match="does not place"):
                btf_member(machine, structure="module", member="list", shift=8)
