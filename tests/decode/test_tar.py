import contextlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError
from hypervigil.decode.tar import TarMember, each_tar_member

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def archive(files: dict[str, bytes], kind: int = tarfile.GNU_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as made:
        folder = tarfile.TarInfo("./boot")
        folder.type = tarfile.DIRTYPE
        made.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _read(data: bytes, limit: int = 1 << 20, step: int = 700) -> list[TarMember]:
    chunks = (data[at : at + step] for at in range(0, len(data), step))
    return list(each_tar_member(chunks, lambda name: not name.endswith(".skip"), limit))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("step", [1, 512, 10_000])
def test_wanted_files_come_in_order_with_their_bytes(kind: str, step: int) -> None:
    files = {"./boot/vmlinuz": b"k" * 1000, "b.skip": b"x" * 9999, "empty": b"", "last": b"z" * 512}
    assert _read(archive(files, FORMATS[kind]), step=step) == [
        TarMember("boot/vmlinuz", b"k" * 1000),
        TarMember("empty", b""),
        TarMember("last", b"z" * 512),
    ]


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_long_and_foreign_names_are_whole(kind: str) -> None:
    name = "usr/lib/" + "módulo/" * 40 + "kvm.ko"
    assert _read(archive({name: b"m"}, FORMATS[kind])) == [TarMember(name, b"m")]


def test_a_name_in_two_fields_is_joined() -> None:
    name = "usr/lib/" + "d" * 80 + "/" + "f" * 60
    assert _read(archive({name: b"m"}, FORMATS["ustar"])) == [TarMember(name, b"m")]


def test_only_a_wanted_file_may_be_too_large() -> None:
    data = archive({"a.skip": b"x" * 5000, "b": b"y" * 100})
    assert [member.name for member in _read(data, limit=1000)] == ["b"]
    with pytest.raises(DecodeError, match="b has 100 bytes, more than 99"):
        _read(data, limit=99)


@pytest.mark.parametrize(("place", "value"), [(512 + 150, b"9"), (512 + 124, b"z"), (512, b"Q")])
def test_a_damaged_header_is_refused(place: int, value: bytes) -> None:
    data = archive({"a": b"x"})
    with pytest.raises(DecodeError, match=r"checksum|octal"):
        _read(data[:place] + value + data[place + 1 :])


def test_a_cut_archive_is_refused_after_what_was_whole() -> None:
    data = archive({"a": b"x" * 512, "b": b"y" * 512})
    members = each_tar_member(iter([data[: 512 * 4 + 100]]), lambda _: True, 1000)
    assert next(members).name == "a"
    with pytest.raises(DecodeError, match="cut off"):
        next(members)


@given(st.data())
def test_damaged_archives_end(data: st.DataObject) -> None:
    raw = bytearray(
        archive({"a" * 120: b"x" * 700, "b": b""}, data.draw(st.sampled_from(sorted(FORMATS.values())[1:])))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        block = data.draw(st.integers(0, len(raw) // 512 - 1)) * 512
        raw[block + data.draw(st.integers(0, 511))] = data.draw(st.integers(0, 255))
        checksum = sum(raw[block : block + 512]) - sum(raw[block + 148 : block + 156]) + 256
        raw[block + 148 : block + 156] = b"%06o\0 " % checksum
    with contextlib.suppress(DecodeError):
        assert len(_read(bytes(raw))) <= 4
