import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError, UsageError
from hypervigil.memory.qemu_layout import (
    Block,
    blocks_from_command_line,
    blocks_from_monitor,
    each_option,
    memory_size,
    option_fields,
    readable_maps,
)
from tests.memory.fake_qmp import TREE, line

MIB, GIB = 1 << 20, 1 << 30
HOST = 0x7F00_0000_0000


class Answers:
    """A monitor whose blocks of memory stand at chosen places of the process."""

    def __init__(self, tree: str, shift: dict[int, int] | None = None) -> None:
        self.tree = tree
        self.shift = shift or {}

    def status(self) -> str:
        return "running"

    def ask(self, question: str) -> str:
        if question.startswith("gpa2hva"):
            address = int(question.split()[1], 16)
            host = HOST + address + self.shift.get(address, 0)
            return f"Host virtual address for {address:#x} (pc.ram) is {host:#x}\r\n"
        return self.tree.replace("\n", "\r\n")

    def close(self) -> None:
        pass


def test_ram_and_rom_of_one_block_are_joined_and_devices_left_out() -> None:
    tree = TREE + "".join(
        [
            line(0, 0xA0000, "ram", "pc.ram"),
            line(0xA0000, 0xC0000, "i/o", "vga-lowmem"),
            line(0xC0000, 0xCB000, "rom", "pc.ram", 0xC0000),
            line(0xCB000, 2 * GIB, "ram", "pc.ram", 0xCB000),
            line(0xFD000000, 0xFE000000, "ramd", "vfio BAR 0"),
            line(0xFFFC0000, 4 * GIB, "rom", "pc.bios"),
            line(4 * GIB, 5 * GIB, "ram", "pc.ram", 2 * GIB).rstrip("\n") + " KVM\n",
        ]
    )
    assert blocks_from_monitor(Answers(tree)) == (
        Block(0, 0xA0000, HOST),
        Block(0xC0000, 2 * GIB, HOST + 0xC0000),
        Block(0xFFFC0000, 4 * GIB, HOST + 0xFFFC0000),
        Block(4 * GIB, 5 * GIB, HOST + 4 * GIB),
    )


def test_neighbours_of_different_blocks_stay_apart() -> None:
    tree = TREE + line(0, 4096, "ram", "node0") + line(4096, 8192, "ram", "node1")
    assert [block.end for block in blocks_from_monitor(Answers(tree))] == [4096, 8192]


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ("", "no address space"),
        (TREE.replace('"memory"', '"other"'), "no address space"),
        (TREE, "0 pieces"),
        (TREE + line(0x2000, 0x3000, "ram", "a") + line(0x1000, 0x2000, "ram", "b"), "out of order"),
        (TREE + line(0, 1 << 60, "ram", "a"), "out of order"),
        (TREE + "".join(line(i << 13, (i << 13) + 4096, "ram", "a") for i in range(5000)), "5000 pieces"),
    ],
)
def test_a_tree_of_another_form_is_refused(tree: str, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        blocks_from_monitor(Answers(tree))


def test_a_piece_that_is_not_linear_in_the_process_is_refused() -> None:
    with pytest.raises(DecodeError, match="not one piece"):
        blocks_from_monitor(Answers(TREE + line(0, 0x2000, "ram", "a"), {0x1FFF: 4096}))


def _maps(size: int, *others: str) -> str:
    return "\n".join([f"{HOST:x}-{HOST + size:x} rw-p 00000000 00:00 0", *others, "junk", "0-1000 ---p 0 00:00 0"])


@pytest.mark.parametrize(
    ("machine", "size", "low"),
    [
        ("q35", 0xB000_0000 - MIB, 0xB000_0000 - MIB),
        ("q35", 0xB000_0000, 2 * GIB),
        ("pc-q35-9.1,accel=kvm", 8 * GIB, 2 * GIB),
        ("pc", 0xE000_0000 - MIB, 0xE000_0000 - MIB),
        ("pc-i440fx-7.2,usb=off", 0xE000_0000, 3 * GIB),
        ("type=pc,accel=tcg", 6 * GIB, 3 * GIB),
    ],
)
def test_the_command_line_tells_where_memory_is_split(machine: str, size: int, low: int) -> None:
    arguments = ["qemu", "-machine", machine, "-m", f"{size >> 10}k"]
    high = [Block(4 * GIB, 4 * GIB + size - low, HOST + low)] if size > low else []
    assert list(blocks_from_command_line(arguments, _maps(size))) == [
        Block(0, 0xA0000, HOST),
        Block(0xC0000, low, HOST + 0xC0000),
        *high,
    ]


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("512", 512 * MIB),
        ("2G", 2 * GIB),
        ("size=524288k,slots=4,maxmem=8G", 512 * MIB),
        ("1024M,slots=2", GIB),
        ("64b", 64),
    ],
)
def test_the_size_of_memory_in_all_its_forms(value: str, size: int) -> None:
    assert memory_size(["qemu", "-m", "7", "-m", value]) == size


@pytest.mark.parametrize(
    "arguments",
    [
        ["qemu"],
        ["-m", "lots"],
        ["-m", "0"],
        ["-m", "512"],
        ["-m", "512", "-machine", "virt"],
        ["-m", "512", "-machine", "q35,max-ram-below-4g=1G"],
        ["-m", "512", "-M", "q35", "-numa", "node,memdev=a", "-numa", "node,memdev=b"],
        ["-m", "2T", "-M", "q35"],
        ["-m", "256", "-M", "q35"],
    ],
)
def test_an_open_layout_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        blocks_from_command_line(arguments, _maps(512 * MIB))


def test_two_mappings_that_fit_are_no_answer() -> None:
    twice = _maps(512 * MIB, f"{HOST * 2:x}-{HOST * 2 + 512 * MIB:x} rw-s 0 00:00 0")
    with pytest.raises(UsageError, match="2 mappings"):
        blocks_from_command_line(["-m", "512", "-M", "q35"], twice)


def test_options_and_fields() -> None:
    arguments = ["q", "-qmp", "unix:a", "--qmp", "unix:b", "-chardev", "socket,id=c,path=/x,,y"]
    assert each_option(arguments, "qmp") == ["unix:a", "unix:b"]
    assert option_fields("socket,id=c,path=/x,,y") == {"socket": "", "id": "c", "path": "/x,y"}
    assert option_fields('{"id": "c", "fd": 3}') == {"id": "c", "fd": "3"}
    assert option_fields("{broken") == {}
    assert option_fields("[" * 100_000) == {"[" * 100_000: ""}


def test_maps_are_readable_and_written() -> None:
    text = "1000-2000 r--p 0 0:0 0\n2000-3000 rw-p 0 0:0 0\n3000-4000 -w-p 0 0:0 0\n"
    assert readable_maps(text) == [(0x1000, 0x2000), (0x2000, 0x3000)]
    assert readable_maps(text, written=True) == [(0x2000, 0x3000)]


@given(st.text(max_size=300))
def test_any_answer_is_a_layout_or_refused(tail: str) -> None:
    with contextlib.suppress(DecodeError):
        blocks = blocks_from_monitor(Answers(TREE + line(0, 4096, "ram", "a") + tail))
        assert blocks[0] == Block(0, 4096, HOST)


@given(st.lists(st.text(max_size=20), max_size=6), st.text(max_size=60))
def test_any_command_line_is_a_layout_or_refused(arguments: list[str], maps: str) -> None:
    with contextlib.suppress(UsageError):
        assert blocks_from_command_line(["-m", *arguments, "-M", "q35"], maps)
