"""Files to compare with, told apart and taken apart."""

import bz2
import gzip
import lzma
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError, EvidenceError, UnsupportedEvidence
from hypervigil.linux.vendor.files import KERNEL_FILE, MAX_MODULE, Kind, each_object, module_name, recognise
from tests.decode.test_bzimage import bzimage
from tests.decode.test_deb import member
from tests.decode.test_tar import archive
from tests.linux.kernel_builder import bare_kernel
from tests.linux.vendor.shipped import ShippedKernel, ShippedModule

KERNEL = ShippedKernel().file()
MODULE = ShippedModule("kvm_amd").file()
VMLINUZ = bytes(bzimage(gzip.compress(KERNEL)))
TYPES = bare_kernel().types.btf
WANTED = frozenset({"kvm", "kvm_amd"})


def deb(files: dict[str, bytes]) -> bytes:
    control = archive({"./control": b"Package: linux\nVersion: 6.1-1\n"})
    return (
        b"!<arch>\n"
        + member("debian-binary", b"2.0\n")
        + member("control.tar", control)
        + member("data.tar", archive(files))
    )


def objects(name: str, data: bytes) -> list[tuple[str, bytes]]:
    return [(what, bytes(found)) for what, found in each_object(recognise(name, memoryview(data)), WANTED)]


@pytest.mark.parametrize(
    ("data", "kind", "label"),
    [
        (KERNEL, Kind.VMLINUX, "x"),
        (VMLINUZ, Kind.VMLINUZ, "x"),
        (MODULE, Kind.MODULE, "x"),
        (TYPES, Kind.TYPES, "x"),
        (deb({}), Kind.PACKAGE, "linux 6.1-1"),
    ],
)
def test_a_file_is_what_its_first_bytes_say(data: bytes, kind: Kind, label: str) -> None:
    source = recognise("x", memoryview(data))
    assert (source.kind, source.name, source.label) == (kind, "x", label)


@pytest.mark.parametrize("data", [b"", b"\0", b"PK\3\4", b"\x5d\0\0\x80", bytes(4096), b"BTF"])
def test_any_other_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(UnsupportedEvidence, match="x: neither"):
        recognise("x", memoryview(data))


@pytest.mark.parametrize("data", [KERNEL[:100], TYPES[:20], deb({})[:90], b"\x28\xb5\x2f\xfd", gzip.compress(b"text")])
def test_a_damaged_one_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(DecodeError):
        recognise("x", memoryview(data))


def test_a_kernel_and_a_module_hold_themselves() -> None:
    assert objects("vmlinux", KERNEL) == [(KERNEL_FILE, KERNEL)]
    assert objects("vmlinuz", VMLINUZ) == [(KERNEL_FILE, KERNEL)]
    assert objects("kvm-amd.ko", MODULE) == [("kvm_amd", MODULE)]
    assert objects("xfs.ko", MODULE) == []
    assert objects("types", TYPES) == []


@pytest.mark.parametrize("pack", [lzma.compress, zstandard.compress, gzip.compress])
def test_a_packed_kernel_and_a_packed_module_are_what_comes_out(pack: Callable[[bytes], bytes]) -> None:
    assert recognise("kvm-amd.ko.xz", memoryview(pack(MODULE))).kind is Kind.MODULE
    assert recognise("vmlinux.xz", memoryview(pack(KERNEL))).kind is Kind.VMLINUX
    for suffix in (".xz", ".zst", ".gz"):
        assert objects(f"kvm-amd.ko{suffix}", pack(MODULE)) == [("kvm_amd", MODULE)]
    assert objects("vmlinux.xz", pack(KERNEL)) == [(KERNEL_FILE, KERNEL)]


def test_a_packed_file_is_cited_as_it_was_given() -> None:
    packed = gzip.compress(MODULE)
    assert bytes(recognise("kvm-amd.ko.gz", memoryview(packed)).data) == packed


@pytest.mark.parametrize(
    ("suffix", "pack"), [("", bytes), (".xz", lzma.compress), (".zst", zstandard.compress), (".gz", gzip.compress)]
)
def test_a_package_holds_its_kernel_and_the_modules_that_are_wanted(
    suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    files = {
        "./boot/vmlinuz-6.1": VMLINUZ,
        "./boot/System.map-6.1": b"x",
        f"./lib/modules/6.1/kernel/arch/x86/kvm/kvm-amd.ko{suffix}": pack(MODULE),
        f"./lib/modules/6.1/kernel/fs/xfs.ko{suffix}": b"not wanted",
    }
    assert objects("x.deb", deb(files)) == [(KERNEL_FILE, KERNEL), ("kvm_amd", MODULE)]


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("./usr/lib/modules/7.2/vmlinuz", VMLINUZ),
        ("./lib/modules/7.2/vmlinuz", VMLINUZ),
        ("./usr/lib/debug/boot/vmlinux-6.1", KERNEL),
        ("./usr/lib/debug/lib/modules/6.1/vmlinux", KERNEL),
    ],
)
def test_a_kernel_is_found_wherever_packages_have_it(path: str, data: bytes) -> None:
    assert objects("x.deb", deb({path: data, "./usr/share/vmlinuz": b"", "./boot/vmlinuz-6.1/x": b""})) == [
        (KERNEL_FILE, KERNEL)
    ]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("lib/modules/x/kvm-amd.ko", "kvm_amd"),
        ("kvm.ko.xz", "kvm"),
        ("kvm.ko.zst", "kvm"),
        ("kvm.ko.gz", "kvm"),
        ("kvm.ko.bz2", ""),
        ("kvm.koala", ""),
        (".ko", ""),
        ("kvm.ko/x", ""),
        ("", ""),
    ],
)
def test_the_name_of_a_module_is_that_of_its_file(path: str, name: str) -> None:
    assert module_name(path) == name


BOMB = bytes(MAX_MODULE + (1 << 20))


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_module_that_unpacks_without_end_is_refused(pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(DecodeError, match="more than"):
        objects("x.deb", deb({"./kvm.ko.xz": pack(BOMB)}))


def test_packing_within_packing_is_not_followed() -> None:
    twice = gzip.compress(gzip.compress(MODULE))
    assert objects("x.deb", deb({"./kvm.ko.gz": twice})) == [("kvm", gzip.compress(MODULE))]
    inner = deb({"./boot/vmlinuz-6.1": VMLINUZ})
    with pytest.raises(DecodeError):
        objects("x.deb", deb({"./boot/vmlinuz-6.1": inner}))
    with pytest.raises(DecodeError, match=r"no compression|no ELF"):
        objects("vmlinuz", bytes(bzimage(gzip.compress(VMLINUZ))))
    assert objects("x.deb", deb({"./kvm.ko": bz2.compress(MODULE)})) == [("kvm", MODULE)]


def test_what_came_before_damage_was_given() -> None:
    whole = archive({"./boot/vmlinuz-6.1": VMLINUZ, "./lib/modules/kvm.ko": MODULE})
    cut = deb({})[: -len(archive({})) - 60] + member("data.tar", whole[: len(VMLINUZ) + 3000])
    found = each_object(recognise("x.deb", memoryview(cut)), WANTED)
    assert next(found)[0] == KERNEL_FILE
    with pytest.raises(DecodeError, match="cut off"):
        list(found)


@settings(deadline=None)
@given(
    st.sampled_from([KERNEL, VMLINUZ, MODULE, TYPES, deb({"./boot/vmlinuz-6.1": VMLINUZ, "./kvm.ko": MODULE})]),
    st.integers(0, 1 << 16),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4),
)
def test_any_damage_gives_objects_or_a_reason(data: bytes, end: int, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(data[: len(data) - end % len(data)])
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        found = objects("kvm.ko", bytes(damaged))
    except EvidenceError:
        return
    assert sum(len(one) for _, one in found) <= MAX_MODULE
