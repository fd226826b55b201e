from pathlib import Path

import pytest

from hypervigil.core.units import VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.plant.sites import alternative, jump_label, return_site
from hypervigil.lab.plant.stub import branch
from tests.lab.fakes import KERNEL, MODULE, Ram, fake_machine, sym
from tests.lab.objects import Function, module
from tests.lab.plant.test_packaged import host, with_module

NOP5 = bytes.fromhex("0f1f440000")
TEXT = bytearray(b"\x90" * 0x80)
TEXT[0x10:0x15] = branch(0xE9, 0x10, 0x40)  # a return through a thunk
TEXT[0x20:0x25] = NOP5
TEXT[0x30:0x35] = bytes.fromhex("0f01ca9090")
SYMBOLS = [
    sym("_etext", KERNEL + 0x100, "T"),
    sym("function", MODULE, module="kvm"),
    sym("end", MODULE + 0x20, module="kvm"),
    sym("rest", MODULE + 0x70, module="kvm"),
]


def alternatives(stride: int, *lengths: int) -> bytes:
    """Entries of struct alt_instr; the length of the site is followed by one or two other bytes."""
    length_at = stride - (3 if stride == 13 else 2)
    return b"".join(bytes(length_at) + bytes([length]) + bytes(stride - length_at - 1) for length in lengths)


def layout(path: Path) -> Ram:
    ram = Ram(path / "ram")
    ram.page(KERNEL, executable=True)
    ram.page(MODULE, bytes(TEXT), executable=True)
    return ram


def tables(**content: tuple[bytes, tuple[tuple[int, int], ...]]) -> bytes:
    named = {".return_sites": ".return_sites", "alternatives": ".altinstructions", "labels": "__jump_table"}
    return module(
        bytes(TEXT),
        (Function("function", 0, 32),),
        {named.get(key, f".{key}"): value for key, value in content.items()},
    )


def test_a_return_goes_through_a_bare_ret(tmp_path: Path) -> None:
    data = tables(return_sites=(bytes(8), ((0, 0x60), (4, 0x10))))
    with fake_machine(layout(tmp_path), SYMBOLS, host) as machine:
        planted = return_site(with_module(machine, tmp_path, data), module="kvm", function=["function"])
        assert planted.stub is not None
        assert machine.memory.read(VirtAddr(MODULE + 0x10), 5) == branch(0xE9, MODULE + 0x10, planted.stub)
        assert machine.memory.read(planted.stub, 1) == b"\xc3"


def test_a_function_without_return_sites_is_left_alone(tmp_path: Path) -> None:
    data = tables(return_sites=(bytes(4), ((0, 0x60),)))
    with fake_machine(layout(tmp_path), SYMBOLS, host) as machine, pytest.raises(NotApplicable, match="no return site"):
        return_site(with_module(machine, tmp_path, data), module="kvm", function=["function"])


@pytest.mark.parametrize("stride", [12, 13, 14])
def test_an_alternative_that_is_long_enough_is_jumped_over(tmp_path: Path, stride: int) -> None:
    places = ((0, 0x20), (4, 0x50), (stride, 0x30), (stride + 4, 0x50))
    data = tables(alternatives=(alternatives(stride, 3, 5), places))
    with fake_machine(layout(tmp_path), SYMBOLS, host) as machine:
        planted = alternative(with_module(machine, tmp_path, data), module="kvm")
        assert planted.stub is not None
        site = MODULE + 0x30
        assert machine.memory.read(VirtAddr(site), 5) == branch(0xE9, site, planted.stub)
        assert machine.memory.read(planted.stub, 10) == bytes.fromhex("0f01ca9090") + branch(
            0xE9, planted.stub + 5, site + 5
        )


@pytest.mark.parametrize(("place", "carried", "target"), [(0x20, NOP5, 0x25), (0x10, b"", 0x40)])
def test_a_jump_label_goes_on_where_it_went(tmp_path: Path, place: int, carried: bytes, target: int) -> None:
    data = tables(labels=(bytes(32), ((0, 0x60), (4, 0), (16, place), (20, 0x40))))
    with fake_machine(layout(tmp_path), SYMBOLS, host) as machine:
        planted = jump_label(with_module(machine, tmp_path, data), module="kvm")
        assert planted.stub is not None
        code = machine.memory.read(planted.stub, len(carried) + 5)
        assert code == carried + branch(0xE9, planted.stub + len(carried), MODULE + target)


def test_labels_of_two_bytes_are_too_short(tmp_path: Path) -> None:
    data = tables(labels=(bytes(16), ((0, 0x60),)))
    with fake_machine(layout(tmp_path), SYMBOLS, host) as machine, pytest.raises(NotApplicable, match="five bytes"):
        jump_label(with_module(machine, tmp_path, data), module="kvm")
