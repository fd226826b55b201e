import gzip
import lzma
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError
from hypervigil.decode.deb import deb_control, each_deb_member
from tests.decode.test_tar import archive

CONTROL = b"Package: linux-image-6.1.0\nVersion: 6.1.192-2\nDescription: Linux\n long text\n .\n"
FILES = {"./boot/vmlinuz-6.1.0": b"kernel", "./usr/share/doc/x": b"doc" * 1000}


def member(name: str, content: bytes) -> bytes:
    return (
        f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        + content
        + b"\n" * (len(content) % 2)
    )


def package(suffix: str, pack: Callable[[bytes], bytes]) -> bytes:
    return (
        b"!<arch>\n"
        + member("debian-binary", b"2.0\n")
        + member(f"control.tar{suffix}", pack(archive({"./control": CONTROL})))
        + member(f"data.tar{suffix}", pack(archive(FILES)))
    )


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".xz", lzma.compress), (".zst", zstandard.compress), (".gz", gzip.compress), ("", bytes)]
)
def test_control_and_wanted_files_are_read(suffix: str, pack: Callable[[bytes], bytes]) -> None:
    data = memoryview(package(suffix, pack))
    control = deb_control(data)
    assert (control["Package"], control["Version"]) == ("linux-image-6.1.0", "6.1.192-2")
    assert control["Description"] == "Linux\nlong text\n."
    found = list(each_deb_member(data, lambda name: name.startswith("boot/")))
    assert [(file.name, file.content) for file in found] == [("boot/vmlinuz-6.1.0", b"kernel")]


def test_a_wanted_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(DecodeError, match="more than 100"):
        list(each_deb_member(memoryview(package("", bytes)), lambda _: True, limit=100))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PK\3\4", "not an ar archive"),
        (b"!<arch>\n", "no member control.tar"),
        (b"!<arch>\n" + b"x" * 60, "malformed ar header"),
        (b"!<arch>\n" + member("control.tar", b"x" * 9)[:65], "cut off"),
        (b"!<arch>\n" + member("control.tar", archive({"md5sums": b""})), "no control file"),
        (b"!<arch>\n" + member("control.tar.xz", b"plain"), "no compression"),
    ],
)
def test_what_is_no_package_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        deb_control(memoryview(data))


@given(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8))
def test_damaged_packages_give_fields_or_a_reason(place: int, junk: bytes) -> None:
    data = bytearray(package("", bytes))
    place %= len(data)
    data[place : place + len(junk)] = junk
    try:
        fields = deb_control(memoryview(data))
    except DecodeError:
        return
    assert sum(map(len, fields.values())) <= len(CONTROL)
