"""ELF files, sound and hostile."""

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError, EvidenceError, UnsupportedEvidence
from hypervigil.linux.vendor.elf import EXECUTABLE, RELOCATABLE, ElfFile, each_note, text_at
from tests.linux.vendor import elf_builder as elf
from tests.linux.vendor.elf_builder import Elf, build_id, note

_FILE_SECTIONS, _SECTION_OFFSET, _SECTION_SIZE = 0x28, 24, 32


def sample() -> Elf:
    made = Elf()
    text = made.section(".text", b"\x90" * 64, elf.ALLOC | elf.EXEC)
    made.section(".note.gnu.build-id", build_id(b"\x12\x34"), kind=elf.NOTE)
    made.section(".bss", b"", elf.ALLOC | elf.WRITE, kind=elf.NOBITS, size=4096)
    first = made.symbol("init_module", text, 16)
    made.relocate(text, 8, elf.PC32, first, -4)
    made.relocate(text, 16, elf.ABS64, made.symbol("printk", elf.UNDEFINED), 2)
    return made


def opened(data: bytes) -> ElfFile:
    return ElfFile(memoryview(data))


def test_sections_come_in_their_order_with_what_the_headers_say() -> None:
    file = opened(sample().data())
    assert file.kind == RELOCATABLE
    assert [section.name for section in file.sections][:4] == ["", ".text", ".note.gnu.build-id", ".bss"]
    text, bss = file.find(".text"), file.find(".bss")
    assert text is not None
    assert bss is not None
    assert (text.number, text.flags, text.size) == (1, elf.ALLOC | elf.EXEC, 64)
    assert file.content(text) == b"\x90" * 64
    assert (bss.size, file.content(bss)) == (4096, b"")
    assert file.find(".none") is None


def test_symbols_and_relocations_come_in_bulk() -> None:
    file = opened(sample().data())
    rows, strings = file.symbols()
    assert [text_at(strings, at) for at in rows["name"].tolist()] == ["", "init_module", "printk"]
    assert rows["value"].tolist() == [0, 16, 0]
    assert rows["shndx"].tolist() == [0, 1, 0]
    found = file.relocations(file.sections[1])
    assert found["offset"].tolist() == [8, 16]
    assert found["type"].tolist() == [elf.PC32, elf.ABS64]
    assert found["symbol"].tolist() == [1, 2]
    assert found["addend"].tolist() == [-4, 2]
    assert len(file.relocations(file.sections[2])) == 0


def test_relocations_of_one_section_in_two_tables_are_both_there() -> None:
    made = sample()
    made.rows.append(
        made.rows[1]._replace(name=".rela.more", kind=elf.RELA, data=struct.pack("<QIIq", 0, 2, 1, 7), size=24, info=1)
    )
    file = opened(made.data())
    assert sorted(file.relocations(file.sections[1])["addend"].tolist()) == [-4, 2, 7]


def test_a_file_without_symbols_has_none() -> None:
    made = Elf(elf.EXECUTABLE)
    made.section(".text", b"\xc3", elf.ALLOC | elf.EXEC)
    file = opened(made.data())
    rows, strings = file.symbols()
    assert (file.kind, len(rows), strings) == (EXECUTABLE, 0, b"")


def test_a_table_of_symbols_whose_strings_are_no_section_is_empty() -> None:
    data = bytearray(sample().data())
    file = opened(bytes(data))
    table = next(section for section in file.sections if section.kind == elf.SYMTAB)
    place = header_of(data, table.number)
    struct.pack_into("<I", data, place + 40, 0xFFFF)
    assert len(opened(bytes(data)).symbols()[0]) == 0


def test_the_build_id_is_that_of_the_linker() -> None:
    made = Elf()
    made.section(".note.Linux", note(b"Linux", 0x100, b"\x01\0\0\0") + note(b"GNU", 1, b"\x05" * 4), kind=elf.NOTE)
    made.section(".note.gnu.build-id", note(b"GNU", 5, b"x") + build_id(bytes(range(20))), kind=elf.NOTE)
    assert opened(made.data()).build_id() == bytes(range(20)).hex()
    assert opened(Elf().data()).build_id() == ""


def test_what_follows_the_headers_is_kept() -> None:
    assert bytes(opened(sample().data() + b"behind").rest()) == b"behind"
    assert bytes(opened(sample().data()).rest()) == b""


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (Elf(machine=183), UnsupportedEvidence),
        (Elf(ident=b"\x7fELF\x01\x01"), UnsupportedEvidence),
        (Elf(ident=b"\x7fELF\x02\x02"), UnsupportedEvidence),
        (Elf(ident=b"\x7fELG\x02\x01"), DecodeError),
    ],
)
def test_a_file_of_another_machine_or_kind_is_refused(made: Elf, error: type[EvidenceError]) -> None:
    with pytest.raises(error):
        opened(made.data())


def header_of(data: bytes | bytearray, number: int) -> int:
    """Where a section's header stands."""
    start: int = struct.unpack_from("<Q", data, _FILE_SECTIONS)[0]
    return start + number * elf.SECTION_HEADER


@pytest.mark.parametrize("value", [1 << 20, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("field", [_SECTION_OFFSET, _SECTION_SIZE])
def test_a_section_outside_of_the_file_is_refused(field: int, value: int) -> None:
    data = bytearray(sample().data())
    struct.pack_into("<Q", data, header_of(data, 1) + field, value)
    with pytest.raises(DecodeError, match=r"outside of the file|overlap"):
        read_whole(bytes(data))


def test_a_section_of_no_bytes_may_claim_any_size() -> None:
    data = bytearray(sample().data())
    struct.pack_into("<Q", data, header_of(data, 3) + _SECTION_SIZE, 1 << 63)
    file = opened(bytes(data))
    assert file.content(file.sections[3]) == b""


def test_section_headers_outside_of_the_file_are_refused() -> None:
    for place in (1 << 20, 1 << 63, (1 << 64) - 1):
        data = bytearray(sample().data())
        struct.pack_into("<Q", data, _FILE_SECTIONS, place)
        with pytest.raises(DecodeError, match="do not fit"):
            opened(bytes(data))


def test_sections_that_share_bytes_are_refused() -> None:
    """Else a file of a few bytes could be made to fill all of memory."""
    made = Elf()
    for index in range(5000):
        made.section(f".text.{index}", b"", elf.ALLOC | elf.EXEC)
    made.section(".rodata", b"\x90" * (1 << 20))
    data = bytearray(made.data())
    offset, size = struct.unpack_from("<QQ", data, header_of(data, 5001) + _SECTION_OFFSET)
    for index in range(1, 5001):
        struct.pack_into("<QQ", data, header_of(data, index) + _SECTION_OFFSET, offset, size)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="overlap"):
            read_whole(bytes(data))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_strings_without_end_are_empty() -> None:
    assert text_at(b"\0abc", 1) == ""
    assert text_at(b"\0abc\0", 1) == "abc"
    assert text_at(b"\0abc\0", 99) == ""
    assert text_at(b"x" * 4096 + b"\0", 0) == ""


def test_notes_end_at_what_is_none() -> None:
    good = note(b"GNU", 3, b"\x01\x02\x03") + note(b"Xen", 6, b"")
    assert list(each_note(good)) == [(b"GNU", 3, b"\x01\x02\x03"), (b"Xen", 6, b"")]
    assert list(each_note(good + struct.pack("<III", 4, 1 << 31, 3))) == list(each_note(good))
    assert len(list(each_note(bytes(12 * 10_000)))) < 1000


@given(st.binary(max_size=200))
def test_notes_of_any_bytes_end(data: bytes) -> None:
    for name, kind, body in each_note(data):
        assert len(name) + len(body) <= len(data)
        assert 0 <= kind < 1 << 32


def read_whole(data: bytes) -> None:
    """Everything that can be asked of a file."""
    file = opened(data)
    for section in file.sections:
        assert len(file.content(section)) <= len(data)
        file.relocations(section)
    rows, strings = file.symbols()
    assert all(len(text_at(strings, at)) < 512 for at in rows["name"].tolist())
    file.build_id()


@pytest.mark.parametrize("step", [1, 7])
def test_a_file_cut_anywhere_is_refused_or_read(step: int) -> None:
    data = sample().data()
    for end in range(0, len(data), step):
        with pytest.raises(EvidenceError):
            read_whole(data[:end])


@given(st.lists(st.tuples(st.integers(0, 1 << 12), st.integers(0, 255)), max_size=6))
def test_any_damage_gives_a_file_or_a_reason(changes: list[tuple[int, int]]) -> None:
    data = bytearray(sample().data())
    for place, value in changes:
        data[place % len(data)] = value
    try:
        read_whole(bytes(data))
    except EvidenceError as fault:
        assert str(fault)  # noqa: PT017 - that there is a reason is the point


def test_relocations_of_many_sections_are_found_at_once() -> None:
    """The work grows with the sections, not with their square."""
    made = Elf()
    for index in range(1, 2000):
        made.section(f".t{index}", bytes(8))
    for index in range(1, 2000):
        made.relocate(index, 0, elf.ABS64, made.symbol(f"s{index}", index))
    file = opened(made.data())
    looked = [file.relocations(section) for section in file.sections]
    assert sum(map(len, looked)) == 1999
    assert np.concatenate(looked)["symbol"].tolist() == list(range(1, 2000))
