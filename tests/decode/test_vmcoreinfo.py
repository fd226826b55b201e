import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError
from hypervigil.decode.vmcoreinfo import decode_vmcoreinfo, find_vmcoreinfo

TEXT = b"""OSRELEASE=6.1.0-56-cloud-amd64
BUILD-ID=3b43fad5034874490492495d552c0af6a5fab235
PAGESIZE=4096
SYMBOL(swapper_pg_dir)=ffffffffb4610000
NUMBER(VMALLOC_START)=0xffffd43180000000
LENGTH(mem_section)=2048
SIZE(page)=64
OFFSET(page.flags)=0
CONFIG(KALLSYMS)=y
NUMBER(phys_base)=-478150656
KERNELOFFSET=31c00000
CRASHTIME=1700000000
"""


def test_every_kind_of_line_has_its_place() -> None:
    info = decode_vmcoreinfo(TEXT)
    assert info.osrelease == "6.1.0-56-cloud-amd64"
    assert info.build_id == "3b43fad5034874490492495d552c0af6a5fab235"
    assert info.page_size == 4096
    assert info.kernel_offset == 0x31C00000
    assert info.symbols == {"swapper_pg_dir": 0xFFFFFFFFB4610000}
    assert info.numbers == {"VMALLOC_START": 0xFFFFD43180000000, "phys_base": -478150656}
    assert info.lengths == {"mem_section": 2048}
    assert info.sizes == {"page": 64}
    assert info.offsets == {"page.flags": 0}
    assert info.config == {"KALLSYMS": "y"}
    assert info.other == {"CRASHTIME": "1700000000"}
    assert info.contradictions == ()
    assert info.raw == TEXT.decode()


@pytest.mark.parametrize("tail", [b"\0" * 9, b"\0OSRELEASE=9\n", b"\xff\xff\n", b"SYMBOL(unfinished"])
def test_the_text_ends_where_its_form_ends(tail: bytes) -> None:
    assert decode_vmcoreinfo(TEXT + tail).raw == TEXT.decode()


def test_two_values_of_one_key_are_a_contradiction_and_the_first_stands() -> None:
    info = decode_vmcoreinfo(TEXT + b"SYMBOL(swapper_pg_dir)=ffffffff81000000\nKERNELOFFSET=31c00000\n")
    assert info.contradictions == ("SYMBOL(swapper_pg_dir) is ffffffffb4610000 and ffffffff81000000",)
    assert info.symbols["swapper_pg_dir"] == 0xFFFFFFFFB4610000


def test_absent_keys_are_absent_and_not_zero() -> None:
    bare = b"".join(line + b"\n" for line in TEXT.splitlines() if not line.startswith((b"K", b"B", b"P")))
    info = decode_vmcoreinfo(bare)
    assert (info.kernel_offset, info.page_size, info.build_id) == (None, None, "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"=ffffffffb4610000", b"=0xffffffffb4610000"),
        (b"=ffffffffb4610000", b"=fffffffffb46100001"),
        (b"=31c00000", b"=-1"),
        (b"=64", b"=-64"),
        (b"=-478150656", b"=twelve"),
        (b"PAGESIZE=4096", b"PAGESIZE=4k"),
        (b"BUILD-ID=3b", b"BUILD-ID=xy"),
        (b"OSRELEASE", b"OSRELEASES"),
        (b"PAGESIZE=4096\n", b"PAGESIZE 4096\n"),
    ],
)
def test_what_no_kernel_writes_is_refused(old: bytes, new: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_vmcoreinfo(TEXT.replace(old, new))


def test_candidates_are_found_anywhere() -> None:
    assert list(find_vmcoreinfo(b"xOSRELEASE=%s\n\0" + TEXT + b"\0" + TEXT + b"OSRELEASE=\n")) == [15, 16 + len(TEXT)]


@given(st.binary(max_size=400), st.integers(0, len(TEXT)), st.integers(0, 40))
def test_damaged_texts_give_a_value_or_a_reason(junk: bytes, place: int, cut: int) -> None:
    with contextlib.suppress(DecodeError):
        info = decode_vmcoreinfo(TEXT[:place] + junk + TEXT[place + cut :])
        assert info.osrelease
        assert len(info.raw) <= len(TEXT) + len(junk)
