"""An object as built, laid out where it is in memory."""

import numpy as np
import pytest

from hypervigil.linux.text.sites import Table
from hypervigil.linux.vendor.built import Built, Part

BASE = 0xFFFF_FFFF_C000_0000


def part(name: str, at: int, data: bytes, *, executable: bool = False, writable: bool = False) -> Part:
    return Part(name, BASE + at, np.frombuffer(data, np.uint8).copy(), executable, writable)


def sample() -> Built:
    return Built(
        "kvm",
        "linux 6.1",
        (
            part(".data", 0x300, b"d" * 8, writable=True),
            part(".text", 0x100, b"\x90" * 16, executable=True),
            part(".text.unlikely", 0x120, b"\xc3" * 4, executable=True),
            part(".rodata", 0x200, bytes(range(8))),
        ),
    )


@pytest.mark.parametrize(
    ("at", "size", "expected"),
    [
        (0x200, 8, bytes(range(8))),
        (0x203, 2, b"\x03\x04"),
        (0x200, 9, b""),
        (0x1FF, 1, b""),
        (0x208, 1, b""),
        (0x10F, 1, b"\x90"),
        (0x10F, 2, b""),
        (0, 1, b""),
        (0x1000, 1, b""),
    ],
)
def test_a_piece_lies_in_one_section_or_is_empty(at: int, size: int, expected: bytes) -> None:
    assert sample().piece(BASE + at, size) == expected


def test_tables_are_the_sections_that_are_no_code() -> None:
    tables = sample().tables()
    assert set(tables) == {".rodata", ".data"}
    assert tables[".rodata"] == Table(BASE + 0x200, bytes(range(8)))


def test_between_sections_stands_what_is_in_memory() -> None:
    memory = bytes([0xAB]) * 0x40
    code = sample().code(BASE + 0x100, BASE + 0x140, memory)
    assert (code.owner, code.start, code.end) == ("kvm", BASE + 0x100, BASE + 0x140)
    assert code.data == b"\x90" * 16 + b"\xab" * 16 + b"\xc3" * 4 + b"\xab" * 28


def test_only_sections_that_lie_in_the_text_are_taken() -> None:
    made = sample()
    assert [one.name for one in made.each_text(BASE + 0x100, BASE + 0x122)] == [".text"]
    assert made.code(BASE + 0x108, BASE + 0x118, b"\xab" * 16).data == b"\xab" * 16


def test_constants_are_neither_code_nor_writable() -> None:
    assert [one.name for one in sample().each_constant()] == [".rodata"]


def test_what_memory_holds_lawfully_is_taken_as_built() -> None:
    made = sample()
    made.settle([(BASE + 0x201, b"xy"), (BASE + 0x207, b"zz"), (BASE + 0x50, b"q"), (BASE + 0x10E, b"\xcc")])
    assert made.piece(BASE + 0x200, 8) == b"\x00xy\x03\x04\x05\x06\x07"
    assert made.piece(BASE + 0x10E, 2) == b"\xcc\x90"
