"""Objects in memory and the files they were built as."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervigil.core.errors import EvidenceError
from hypervigil.linux.system import System
from hypervigil.linux.vendor.files import recognise
from hypervigil.linux.vendor.matching import Failure, Match, Mismatch, Stray, each_match
from tests.decode.test_bzimage import bzimage
from tests.linux.kernel_builder import BUILD_ID, RODATA, TEXT, KernelImage
from tests.linux.vendor import elf_builder as elf
from tests.linux.vendor.shipped import MODULE_ID, Piece, ShippedKernel, ShippedModule, running
from tests.linux.vendor.test_files import deb

KERNEL, SAMPLE = ShippedKernel(), ShippedModule("sample")
USER = ShippedModule("user", b"\x77" * 20, calls=("vfs_read", "sample_read"), depends="sample")


def host() -> KernelImage:
    return running(KERNEL, SAMPLE, USER)


def said(image: KernelImage, name: str, data: bytes) -> list[Match | Mismatch | Failure]:
    return list(each_match(System(image.open()), recognise(name, memoryview(data))))


def test_every_object_of_a_package_that_is_in_memory_matches() -> None:
    files = {
        "./boot/vmlinuz-6.1": bytes(bzimage(gzip.compress(KERNEL.file()))),
        "./lib/modules/sample.ko": SAMPLE.file(),
        "./lib/modules/other.ko": b"no ELF file",
        "./lib/modules/user.ko": USER.file(),
    }
    found = said(host(), "x.deb", deb(files))
    assert [(type(one), one.name) for one in found] == [(Match, "kernel"), (Match, "sample"), (Match, "user")]
    assert [one.unresolved for one in found if isinstance(one, Match)] == [(), (), ()]
    assert [one.astray for one in found if isinstance(one, Match)] == [(), (), ()]


def test_tables_that_stand_between_symbols_are_tables_of_the_kernel() -> None:
    image = host()
    image.name("__start___jump_table", KERNEL.CONSTANTS, "R")
    image.name("__stop___jump_table", KERNEL.CONSTANTS + 32, "R")
    image.put_tables()
    (one,) = said(image, "vmlinux", KERNEL.file())
    assert isinstance(one, Match)
    assert one.tables["__jump_table"] == (KERNEL.CONSTANTS, KERNEL.pieces[2].data[:32])
    assert "__jump_table" not in said(host(), "vmlinux", KERNEL.file())[0].tables  # type: ignore[union-attr] # a match


@pytest.mark.parametrize("build", [b"\xab" * 20, b""])
def test_a_kernel_of_another_build_or_of_none_does_not_match(build: bytes) -> None:
    (one,) = said(host(), "vmlinux", ShippedKernel(build).file())
    assert one == Mismatch("kernel", BUILD_ID.hex(), build.hex(), "vmlinux")
    assert str(one).startswith(f"has kernel of build {build.hex() or 'without an id'}")


def test_a_module_of_another_build_does_not_match() -> None:
    (one,) = said(host(), "sample.ko", ShippedModule("sample", b"\x99" * 20).file())
    assert one == Mismatch("sample", MODULE_ID.hex(), "99" * 20, "sample.ko")


def test_a_module_without_build_id_is_known_by_the_digest_of_its_sources() -> None:
    bare = ShippedModule("sample", b"")
    (one,) = said(host(), "sample.ko", bare.file())
    assert isinstance(one, Match)
    bare.elf.rows = [row._replace(data=row.data.replace(b"ABCDEF", b"FEDCBA")) for row in bare.elf.rows]
    (one,) = said(host(), "sample.ko", bare.file())
    assert one == Mismatch("sample", "ABCDEF", "FEDCBA", "sample.ko")


def test_what_cannot_be_used_is_told_and_the_rest_goes_on() -> None:
    files = {"./sample.ko": b"no ELF file", "./user.ko": USER.file()}
    found = said(host(), "x.deb", deb(files))
    assert [type(one) for one in found] == [Failure, Match]
    assert isinstance(found[0], Failure)
    assert (found[0].name, found[0].label) == ("sample", "linux 6.1-1")
    (lost,) = said(host(), "vmlinuz", bytes(bzimage(b"\x1f\x8b" + bytes(60))))
    assert isinstance(lost, Failure)
    assert lost.name == ""


def test_a_module_that_keeps_no_list_of_its_sections_cannot_be_used() -> None:
    image = host()
    image.set("module", image.at["module sample"], sect_attrs=0)
    (one,) = said(image, "sample.ko", SAMPLE.file())
    assert isinstance(one, Failure)
    assert "keeps no list" in one.why


def test_a_symbol_that_nobody_defines_is_named_and_its_place_is_as_in_memory() -> None:
    lost = ShippedModule("user", b"\x77" * 20, calls=("vfs_read", "nobody"), depends="sample")
    image = host()
    (one,) = said(image, "user.ko", lost.file())
    assert isinstance(one, Match)
    assert one.unresolved == ("nobody",)
    start = image.at["user .text"]
    assert one.built.piece(start, 43) == image.peek(start, 43)


def test_a_symbol_of_a_module_that_is_not_needed_is_nobody_s() -> None:
    lonely = ShippedModule("user", b"\x77" * 20, calls=("vfs_read", "sample_read"))
    (one,) = said(host(), "user.ko", lonely.file())
    assert isinstance(one, Match)
    assert one.unresolved == ("sample_read",)


def test_of_several_symbols_of_one_name_a_global_one_is_meant() -> None:
    image = host()
    image.symbols["vfs_read"] = (KERNEL.READ + 0x10, "t")
    rows = dict(image.symbols)
    image.symbols = {"vfs_read": (KERNEL.READ - 0x10, "t"), **{k: v for k, v in rows.items() if k != "vfs_read"}}
    image.symbols["sample_read"] = (KERNEL.READ, "t")
    image.put_tables()
    (one,) = said(image, "user.ko", USER.file())
    assert isinstance(one, Match)
    call = image.at["user .text"] + 32 + 5
    assert one.built.piece(call, 5) == image.peek(call, 5), "the module's that it needs, not a local one of the kernel"


def test_a_place_that_refers_to_an_empty_section_may_lead_to_the_module_s_own_memory() -> None:
    made = ShippedModule("user", b"\x77" * 20, calls=("vfs_read",))
    empty = made.elf.section(".data.once", b"", elf.ALLOC | elf.WRITE)
    made.elf.relocate(made.data, 8, elf.ABS64, made.elf.symbol("once", empty, kind=elf.OBJECT))
    for own in (True, False):
        image = running(KERNEL, SAMPLE, USER)
        place = image.at["user .data"] + 8
        target = image.at["user .data"] if own else image.at["sample .text"]
        image.poke(place, target.to_bytes(8, "little"))
        (one,) = said(image, "user.ko", made.file())
        assert isinstance(one, Match)
        assert (one.built.piece(place, 8) == image.peek(place, 8)) == own


def test_text_where_data_belongs_is_astray() -> None:
    image = host()
    attributes = image.at["sections of user"]
    image.member("module_sect_attrs", attributes, "attrs[0].address", image.at["user .rodata"])
    (one,) = said(image, "user.ko", USER.file())
    assert isinstance(one, Match)
    assert one.astray == (Stray(".text", executable=True),)


@pytest.mark.parametrize(
    ("symbol", "address", "astray"),
    [
        ("_stext", TEXT + 16, [".text"]),
        ("_etext", TEXT + KERNEL.TEXT_SIZE - 1, [".text"]),
        ("__start_rodata", KERNEL.CONSTANTS + 16, [".rodata"]),
        ("__end_rodata", KERNEL.CONSTANTS + 0x200, [".notes"]),
        ("__end_rodata", KERNEL.CONSTANTS - 0x200, [".rodata", ".notes"]),
    ],
)
def test_what_symbols_leave_out_of_the_kernel_is_astray(symbol: str, address: int, astray: list[str]) -> None:
    kernel = ShippedKernel()
    kernel.pieces.append(Piece(".data", RODATA + 0x2080, b"data" * 4, elf.ALLOC | elf.WRITE))
    for place, expected in ((None, []), (address, astray)):
        image = running(kernel)
        if place is not None:
            image.symbols[symbol] = (place, "T")
            image.put_tables()
        (one,) = said(image, "vmlinux", kernel.file())
        assert isinstance(one, Match)
        assert [stray.name for stray in one.astray] == expected


HOST = System(host().open())
FILES = {"vmlinux": KERNEL.file(), "sample.ko": SAMPLE.file(), "user.ko": USER.file()}


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_any_damage_is_a_match_a_mismatch_or_a_reason(name: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(FILES[name])
    for place, value in changes:
        data[place % len(data)] = value
    try:
        source = recognise(name, memoryview(data))
    except EvidenceError:
        return
    for one in each_match(HOST, source):
        assert isinstance(one, (Match, Mismatch, Failure))
