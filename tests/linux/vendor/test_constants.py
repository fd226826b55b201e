"""Which read-only data stays as it was built."""

import struct

import numpy as np
import pytest

from hypervigil.core.errors import MissingDescription
from hypervigil.linux.system import System
from hypervigil.linux.text.sites import Table
from hypervigil.linux.vendor.built import Built, Part
from hypervigil.linux.vendor.comparison import Constant
from hypervigil.linux.vendor.constants import kernel_constants, module_constants
from hypervigil.memory.symbols import Symbols
from tests.linux.kernel_builder import RODATA, RODATA_SIZE, KernelImage
from tests.linux.vendor.shipped import SYMBOLS, ShippedKernel, ShippedModule, running

KERNEL = ShippedKernel()
BUILT_SYMBOLS = next(
    Part(piece.name, piece.address, np.frombuffer(piece.data, np.uint8), executable=False, writable=False)
    for piece in KERNEL.pieces
    if piece.address == SYMBOLS
)
"""The symbol table in the kernel's file."""


def part(name: str, address: int, size: int = 16, *, executable: bool = False, writable: bool = False) -> Part:
    return Part(name, address, np.zeros(size, np.uint8), executable, writable)


def host() -> tuple[KernelImage, System]:
    image = running(KERNEL, ShippedModule("sample"))
    return image, System(image.open())


def test_the_kernel_s_lie_between_its_symbols_without_what_is_so_after_init() -> None:
    _, system = host()
    parts = (
        BUILT_SYMBOLS,
        part(".rodata", RODATA + 0x10, 0x100, writable=True),
        part(".notes", RODATA + RODATA_SIZE - 16),
        part(".text", RODATA, executable=True),
        part(".data", RODATA - 16, writable=True),
        part(".init.data", RODATA + RODATA_SIZE),
    )
    found = list(kernel_constants(system, Built("kernel", "x", parts)))
    assert {one.part.name for one in found} == {".rodata", ".notes"}
    assert {(one.low, one.high) for one in found} == {
        (RODATA, KERNEL.LATE),
        (KERNEL.LATE + 0x40, RODATA + RODATA_SIZE),
    }


def without(image: KernelImage, **symbols: int) -> System:
    """The system with symbols elsewhere, or without those whose address is 0."""
    for name, address in symbols.items():
        if address:
            image.symbols[name] = (address, "R")
        else:
            del image.symbols[name]
    image.put_tables()
    return System(image.open())


@pytest.mark.parametrize(
    "symbols", [{"__end_rodata": 0}, {"__start_rodata": KERNEL.LATE + 16}, {"__end_rodata": KERNEL.LATE}]
)
def test_without_sound_bounds_nothing_is_known(symbols: dict[str, int]) -> None:
    system = without(host()[0], **symbols)
    with pytest.raises(MissingDescription):
        list(kernel_constants(system, Built("kernel", "x", (BUILT_SYMBOLS,))))


@pytest.mark.parametrize(
    "symbols",
    [
        {"__start_ro_after_init": 0},
        {"__start_ro_after_init": RODATA - 16},
        {"__start_ro_after_init": RODATA, "__end_ro_after_init": RODATA + RODATA_SIZE},
    ],
)
def test_what_memory_says_of_after_init_changes_nothing(symbols: dict[str, int]) -> None:
    """Forged symbols would hide all read-only data."""
    system = without(host()[0], **symbols)
    parts = (BUILT_SYMBOLS, part(".rodata", RODATA + 0x10, 0x100))
    assert [(one.low, one.high) for one in kernel_constants(system, Built("kernel", "x", parts))] == [
        (RODATA, KERNEL.LATE),
        (KERNEL.LATE + 0x40, RODATA + RODATA_SIZE),
    ]


def test_a_file_that_does_not_say_what_is_so_after_init_leaves_it_open() -> None:
    _, system = host()
    code = BUILT_SYMBOLS._replace(executable=True)
    for parts in ((), (part(".rodata", RODATA, 0x100),), (code,)):
        with pytest.raises(MissingDescription, match="read-only after init are not known"):
            list(kernel_constants(system, Built("kernel", "x", parts)))


def test_symbols_that_are_from_a_file_themselves_are_believed() -> None:
    _, system = host()
    system.kernel.use_symbols(system.kernel.symbols)
    parts = (part(".rodata", RODATA, 0x100),)
    assert next(one.high for one in kernel_constants(system, Built("kernel", "x", parts))) == KERNEL.LATE
    names = [name for name in system.kernel.symbols.names if "after_init" not in name]
    empty = Symbols(np.array(range(len(names)), np.uint64) + np.uint64(RODATA), names, "r" * len(names), "a file")
    system.kernel.use_symbols(empty)
    with pytest.raises(MissingDescription):
        list(kernel_constants(system, Built("kernel", "x", parts)))


def of_module(*parts: Part) -> list[Constant]:
    _, system = host()
    module = system.module("sample")
    assert module is not None
    return list(module_constants(system, module, Built("sample", "x", parts)))


def test_a_module_s_are_in_its_read_only_memory_but_for_the_unwinder_s() -> None:
    image, _ = host()
    rodata, data = image.at["sample .rodata"], image.at["sample .data"]
    found = of_module(
        part(".rodata", rodata),
        part(".orc_unwind", rodata + 16),
        part(".orc_unwind_ip", rodata + 32),
        part(".rodata.str1.1", data),
        part(".rodata.elsewhere", 0x1000),
        part("__jump_table", rodata + 48, writable=True),
    )
    assert [(one.part.name, one.low, one.high, one.sort) for one in found] == [(".rodata", rodata, rodata + 16, None)]


def test_what_a_module_makes_read_only_after_init_is_left_out() -> None:
    image, _ = host()
    late = image.at["sample .rodata"] & ~0xFFF
    for index, base, size in ((2, late + 0x1000, 0x1000), (3, late, 0x1000)):
        image.member("module", image.at["module sample"], f"mem[{index}].base", base)
        image.member("module", image.at["module sample"], f"mem[{index}].size", size)
    system = System(image.open())
    module = system.module("sample")
    assert module is not None
    made = Built("sample", "x", (part("__late", late), part(".rodata", late + 0x1000)))
    assert [one.part.name for one in module_constants(system, module, made)] == [".rodata"]


def sorted_by(section: str, data: bytes, at: int = 0x1000) -> bytes:
    image, _ = host()
    (one,) = of_module(part(section, image.at["sample .rodata"], len(data)))
    assert one.sort is not None
    return one.sort(Table(at, data))


def test_places_to_trace_are_compared_as_a_set() -> None:
    one, other = struct.pack("<3Q", 1, 2, 3), struct.pack("<3Q", 3, 1, 2)
    assert sorted_by("__mcount_loc", one) == sorted_by("__mcount_loc", other)
    assert sorted_by("__mcount_loc", one) != sorted_by("__mcount_loc", struct.pack("<3Q", 1, 2, 4))


def exceptions(*rows: tuple[int, int, int], at: int = 0x1000) -> bytes:
    """Entries: absolute instruction and fixup, and what the third number holds."""
    return b"".join(
        struct.pack("<iii", insn - at - 12 * index, fixup - at - 12 * index - 4, last)
        for index, (insn, fixup, last) in enumerate(rows)
    )


def test_exceptions_are_compared_as_a_set_of_places() -> None:
    first, second = (0x2000, 0x2100, 7), (0x1800, 0x2200, 9)
    assert sorted_by("__ex_table", exceptions(first, second)) == sorted_by("__ex_table", exceptions(second, first))
    changed = (0x1800, 0x2204, 9)
    assert sorted_by("__ex_table", exceptions(first, second)) != sorted_by("__ex_table", exceptions(first, changed))
    kind = (0x1800, 0x2200, 8)
    assert sorted_by("__ex_table", exceptions(first, second)) != sorted_by("__ex_table", exceptions(first, kind))


def test_lengths_of_instructions_in_alternatives_are_evened_out() -> None:
    def entry(length: int, replacement: int = 3, place: int = 0x40) -> bytes:
        return struct.pack("<iiHBB", place, 0x80, 9, length, replacement)

    assert sorted_by(".altinstructions", entry(5) * 2) == sorted_by(".altinstructions", entry(7) + entry(5))
    assert sorted_by(".altinstructions", entry(5)) != sorted_by(".altinstructions", entry(5, replacement=2))
    assert sorted_by(".altinstructions", entry(5)) != sorted_by(".altinstructions", entry(5, place=0x41))
