"""Which build an object in memory is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.linux.modules import module_sections
from hypervigil.linux.system import System
from hypervigil.linux.vendor.elf import ElfFile
from hypervigil.linux.vendor.identity import (
    build_id_of,
    loaded_build_id,
    loaded_srcversion,
    modinfo_of,
    running_build_id,
)
from tests.linux.kernel_builder import BUILD_ID, KernelImage
from tests.linux.vendor import elf_builder as elf
from tests.linux.vendor.elf_builder import Elf, build_id, note
from tests.linux.vendor.shipped import MODULE_ID, ShippedKernel, ShippedModule, running


def host() -> KernelImage:
    return running(ShippedKernel(), ShippedModule("sample"))


def test_the_kernel_is_known_by_its_notes() -> None:
    image = host()
    image.poke(image.symbols["__start_notes"][0] + 16, b"\x99")
    assert running_build_id(image.open()) == "99" + BUILD_ID.hex()[2:]


@pytest.mark.parametrize("how", ["no note", "no bounds", "bounds apart", "page lost"])
def test_else_by_vmcoreinfo(how: str) -> None:
    image = host()
    start = image.symbols["__start_notes"][0]
    if how == "no note":
        image.poke(start + 12, b"ABC")
    elif how == "page lost":
        image.wipe(start & ~0xFFF)
    else:
        image.symbols["__stop_notes"] = (start + (1 << 20), "R")
        if how == "no bounds":
            del image.symbols["__stop_notes"]
        image.put_tables()
    assert running_build_id(image.open()) == BUILD_ID.hex()


def test_a_module_is_known_by_its_note() -> None:
    system = System(host().open())
    module = system.module("sample")
    assert module is not None
    places = module_sections(system.kernel, module)
    assert loaded_build_id(system.kernel, places) == MODULE_ID.hex()
    assert loaded_build_id(system.kernel, {}) == ""
    assert loaded_build_id(system.kernel, {".note.gnu.build-id": 0x1000}) == ""
    assert loaded_srcversion(system.kernel, module) == "ABCDEF"


def test_a_module_without_a_digest_of_sources_has_none() -> None:
    image = host()
    image.set("module", image.at["module sample"], srcversion=0)
    system = System(image.open())
    module = system.module("sample")
    assert module is not None
    assert loaded_srcversion(system.kernel, module) == ""


def test_what_a_module_says_of_itself() -> None:
    file = ElfFile(memoryview(ShippedModule("user", depends="sample,other").file()))
    assert modinfo_of(file, "depends") == "sample,other"
    assert modinfo_of(file, "srcversion") == "ABCDEF"
    assert modinfo_of(file, "version") == ""
    bare = Elf()
    bare.section(".text", b"\xc3", elf.ALLOC | elf.EXEC)
    assert modinfo_of(ElfFile(memoryview(bare.data())), "depends") == ""


def test_the_build_id_among_other_notes() -> None:
    assert build_id_of(note(b"Linux", 3, b"\x01") + note(b"GNU", 1, b"\x02") + build_id(b"\x12\x34")) == "1234"
    assert build_id_of(b"") == ""


@given(st.binary(max_size=120))
def test_any_bytes_have_a_build_id_or_none(data: bytes) -> None:
    assert bytes.fromhex(build_id_of(data)) in data
