"""A kernel's file laid out where the kernel runs."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError, EvidenceError
from hypervigil.linux.vendor.built import Built
from hypervigil.linux.vendor.elf import ElfFile
from hypervigil.linux.vendor.kernel_file import (
    add_at,
    boot_relocations,
    build_kernel,
    kernel_offset,
    linker_relocations,
    offsets_in,
)
from tests.linux.kernel_builder import TEXT
from tests.linux.vendor import elf_builder as elf
from tests.linux.vendor.elf_builder import Elf
from tests.linux.vendor.shipped import OFFSET, ShippedKernel

KERNEL = ShippedKernel()
LINKED = TEXT - OFFSET
MAP = 0xFFFF_FFFF_8000_0000
INSIDE = 0x140
"""Where text has nothing but padding."""


def opened(data: bytes) -> ElfFile:
    return ElfFile(memoryview(data))


def nothing(_address: int, _size: int) -> None:
    return None


def memory_of(kernel: ShippedKernel) -> Callable[[int, int], bytes | None]:
    def read(address: int, size: int) -> bytes | None:
        for piece in kernel.pieces:
            at = address - piece.address
            if 0 <= at <= len(piece.data) - size:
                return piece.data[at : at + size]
        return None

    return read


def parts(built: Built) -> dict[str, tuple[int, bytes]]:
    return {part.name: (part.address, part.data.tobytes()) for part in built.parts}


def as_in_memory(kernel: ShippedKernel) -> dict[str, tuple[int, bytes]]:
    return {piece.name: (piece.address, piece.data) for piece in kernel.pieces}


@pytest.mark.parametrize("inverse", [True, False])
def test_lists_behind_a_file_say_what_moves(inverse: bool) -> None:  # noqa: FBT001 - a case
    found = boot_relocations(memoryview(KERNEL.lists(inverse=inverse)))
    assert found
    assert sorted(found.narrow.tolist()) == sorted(place - OFFSET for place in KERNEL.narrow)
    assert sorted(found.wide.tolist()) == sorted(place - OFFSET for place in KERNEL.wide)
    assert found.inverse.tolist() == [place - OFFSET for place in KERNEL.inverse] * inverse


@pytest.mark.parametrize("rest", [b"", b"\0\0\0\0", b"\1\2\3", struct.pack("<3I", 0, 5, 6)])
def test_a_file_with_no_lists_behind_it_says_nothing(rest: bytes) -> None:
    assert not boot_relocations(memoryview(rest))


def test_what_the_linker_kept_says_the_same() -> None:
    found = linker_relocations(opened(KERNEL.elf(kept=True).data()))
    told = boot_relocations(memoryview(KERNEL.lists()))
    for mine, theirs in zip(found, told, strict=True):
        assert sorted(mine.tolist()) == sorted(theirs.tolist())
    assert not linker_relocations(opened(KERNEL.elf().data()))


def test_absolute_symbols_and_symbols_that_are_none_do_not_move() -> None:
    made = KERNEL.elf(kept=True)
    fixed = made.symbol("fixed", elf.ABSOLUTE, 5)
    made.relocations[1] = [(LINKED + 8, elf.ABS64, symbol, 0) for symbol in (fixed, fixed + 1, 1 << 31, 0)]
    assert LINKED + 8 not in linker_relocations(opened(made.data())).wide.tolist()


@pytest.mark.parametrize(
    "file",
    [KERNEL.file(), KERNEL.file(symbols=True), KERNEL.elf(kept=True).data()],
    ids=["lists", "symbols", "linker's"],
)
def test_a_kernel_that_says_what_moves_is_as_in_memory(file: bytes) -> None:
    built = build_kernel(opened(file), "x", OFFSET, nothing)
    found = parts(built)
    found.pop(".data..percpu", None)
    assert found == as_in_memory(KERNEL)
    assert built.moved_by == 0


def test_without_the_middle_list_distances_to_per_cpu_variables_stay() -> None:
    built = build_kernel(opened(KERNEL.file(inverse=False)), "x", OFFSET, nothing)
    differing = [
        a for a, (x, y) in enumerate(zip(parts(built)[".text"][1], KERNEL.pieces[0].data, strict=True)) if x != y
    ]
    assert {TEXT + at for at in differing} <= set(range(KERNEL.inverse[0], KERNEL.inverse[0] + 4))
    assert differing


def test_a_kernel_that_does_not_say_follows_memory_where_that_moved_by_exactly_as_much() -> None:
    built = build_kernel(opened(KERNEL.elf().data()), "x", OFFSET, memory_of(KERNEL))
    assert parts(built)[".text"] == (TEXT, KERNEL.pieces[0].data)
    assert built.moved_by == OFFSET


@pytest.mark.parametrize(
    ("value", "follows"),
    [
        (TEXT % (1 << 32), True),
        (TEXT + 0x20, True),
        (TEXT - MAP, True),
        (OFFSET, True),
        (OFFSET + 0x20, True),
        (TEXT + 0x800_0000, False),
        (0x1234_5678, False),
    ],
)
def test_only_numbers_that_may_be_places_in_the_kernel_move(value: int, follows: bool) -> None:  # noqa: FBT001 - a case
    kernel = ShippedKernel()
    text = bytearray(kernel.pieces[0].data)
    struct.pack_into("<I", text, INSIDE, value % (1 << 32))
    kernel.pieces[0] = kernel.pieces[0]._replace(data=bytes(text))
    kernel.narrow.append(TEXT + INSIDE)
    built = build_kernel(opened(kernel.elf().data()), "x", OFFSET, memory_of(kernel))
    assert (parts(built)[".text"][1] == bytes(text)) == follows


@pytest.mark.parametrize(("target", "follows"), [(0, True), (0xF_FFFF, True), (0x10_0000, False), (0x7000_0000, False)])
def test_only_distances_to_per_cpu_variables_move_back(target: int, follows: bool) -> None:  # noqa: FBT001 - a case
    kernel = ShippedKernel()
    text = bytearray(kernel.pieces[0].data)
    struct.pack_into("<I", text, INSIDE, (target - TEXT - INSIDE - 4) % (1 << 32))
    kernel.pieces[0] = kernel.pieces[0]._replace(data=bytes(text))
    kernel.inverse.append(TEXT + INSIDE)
    built = build_kernel(opened(kernel.elf().data()), "x", OFFSET, memory_of(kernel))
    assert (parts(built)[".text"][1] == bytes(text)) == follows


def test_a_change_of_another_size_is_not_followed() -> None:
    changed = ShippedKernel()
    text = bytearray(changed.pieces[0].data)
    text[KERNEL.narrow[0] - TEXT] ^= 1
    changed.pieces[0] = changed.pieces[0]._replace(data=bytes(text))
    built = build_kernel(opened(KERNEL.elf().data()), "x", OFFSET, memory_of(changed))
    assert parts(built)[".text"][1] != bytes(text)


def test_what_memory_lacks_stays_as_it_was_linked() -> None:
    built = build_kernel(opened(KERNEL.elf().data()), "x", OFFSET, nothing)
    assert parts(built)[".text"] == (TEXT, KERNEL.linked()[0].data)


def test_a_kernel_that_was_not_moved_is_as_it_was_linked() -> None:
    for file in (KERNEL.file(), KERNEL.elf().data()):
        built = build_kernel(opened(file), "x", 0, nothing)
        assert parts(built)[".text"] == (LINKED, KERNEL.linked()[0].data)


def test_how_far_a_kernel_was_moved() -> None:
    assert kernel_offset(opened(KERNEL.file()), TEXT) == OFFSET
    assert kernel_offset(opened(Elf(elf.EXECUTABLE).data()), TEXT) == 0


@pytest.mark.parametrize(
    ("address", "offset"), [((1 << 64) - 1, 0), ((1 << 64) - 64, 0x1000), (0xFFFF_FFFF_0000_0000, -0x1000)]
)
def test_a_section_that_moves_to_where_no_kernel_runs_is_refused(address: int, offset: int) -> None:
    made = Elf(elf.EXECUTABLE)
    made.section(".text", b"\x90" * 64, elf.ALLOC | elf.EXEC, address=address)
    with pytest.raises(DecodeError, match=r"\.text at"):
        build_kernel(opened(made.data()), "x", offset, nothing)


def test_sections_below_the_kernel_and_those_without_bytes_are_no_parts() -> None:
    made = KERNEL.elf()
    made.section(".data..percpu", bytes(16), elf.ALLOC | elf.WRITE)
    made.section(".bss", b"", elf.ALLOC | elf.WRITE, kind=elf.NOBITS, address=LINKED + 0x10000, size=1 << 40)
    made.section(".comment", b"GCC", 0)
    names = set(parts(build_kernel(opened(made.data()), "x", OFFSET, nothing)))
    assert names == {piece.name for piece in KERNEL.pieces}


def test_pointers_to_patch_sites_of_paravirt_move_where_nothing_is_said() -> None:
    made = KERNEL.elf()
    row = struct.pack("<QBB6x", LINKED + 0x40, 3, 5)
    made.section(".parainstructions", row * 2 + row[:10], address=LINKED + 0x20_0100)
    _, data = parts(build_kernel(opened(made.data()), "x", OFFSET, nothing))[".parainstructions"]
    assert [struct.unpack_from("<Q", data, at)[0] for at in (0, 16, 32)] == [TEXT + 0x40] * 3


def test_numbers_are_added_to_modulo_their_width() -> None:
    data = np.frombuffer(b"\xff\xff\xff\xff\x01\0\0\0\0\0\0\0", np.uint8).copy()
    add_at(data, np.array([0]), 2, 4)
    assert data.tobytes()[:8] == b"\x01\0\0\0\x01\0\0\0"
    add_at(data, np.array([4]), -2, 8)
    assert data.tobytes()[4:] == b"\xff" * 8


@given(st.lists(st.integers(-40, 40) | st.integers(0, 1 << 63), max_size=8), st.sampled_from([LINKED, 64, 1 << 63]))
def test_only_places_that_have_room_are_taken(distances: list[int], start: int) -> None:
    places = [(start + distance) % (1 << 64) for distance in distances]
    found = offsets_in(np.array(places, np.uint64), start, 32, 8).tolist()
    assert found == [place - start for place in places if start <= place <= start + 24]


FILES = (KERNEL.file(symbols=True), KERNEL.elf(kept=True).data())


@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 255)), min_size=1, max_size=8),
    st.sampled_from([OFFSET, 0, 1 << 30, -TEXT, 1 << 63]),
)
def test_any_damage_gives_a_kernel_or_a_reason(file: bytes, changes: list[tuple[int, int]], offset: int) -> None:
    data = bytearray(file)
    for place, value in changes:
        data[place % len(data)] = value
    try:
        built = build_kernel(opened(bytes(data)), "x", offset, memory_of(KERNEL))
    except EvidenceError:
        return
    assert sum(len(part.data) for part in built.parts) <= len(data)
    assert all(0 <= part.address <= part.end <= 1 << 64 for part in built.parts)
