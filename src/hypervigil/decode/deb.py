"""Debian packages, read without unpacking anything to disk.

Sources: deb(5) and ar(5) of Debian's dpkg: an ar archive with the members debian-binary, control.tar[.xz|.zst|.gz]
and data.tar[.xz|.zst|.gz|.bz2|.lzma], in this order; deb-control(5).
"""

import re
from typing import TYPE_CHECKING

import msgspec

from hypervigil.core.errors import DecodeError
from hypervigil.decode.compression import CHUNK, each_chunk
from hypervigil.decode.tar import TarMember, each_tar_member

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_MEMBER = 1 << 30
"""Bytes of one file of a package that are believed; a debug vmlinux has some 500 MiB."""

MAX_DATA = 1 << 34
"""Bytes of a whole unpacked package."""

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60
_AR_END = b"`\n"
_MAX_CONTROL = 1 << 20
_MAX_AR_MEMBERS = 16
_FIELD = re.compile(r"([!-9;-~]+):[ \t]*(.*)")


class _ArMember(msgspec.Struct, frozen=True):
    name: str
    start: int
    end: int


def deb_control(data: memoryview) -> "Mapping[str, str]":
    """Fields of a package's control file (Package, Version, Architecture, Source, ...).

    Args:
        data: the whole package file.

    Raises:
        DecodeError: not a package, a damaged archive, or no control file.
    """
    member = _find(data, "control.tar")
    for file in each_tar_member(_chunks(data, member, MAX_DATA), lambda name: name == "control", _MAX_CONTROL):
        return _fields(file.content.decode("utf-8", "replace"))
    raise DecodeError("deb package", "no control file", member.start)


def each_deb_member(
    data: memoryview, wanted: "Callable[[str], bool]", limit: int = MAX_MEMBER
) -> "Iterator[TarMember]":
    """Yield the wanted files of a package, in its order; the rest is passed over without being kept.

    Args:
        data: the whole package file.
        wanted: told each file's name, such as `boot/vmlinuz-6.1.0`; true to have it.
        limit: most bytes that one wanted file may have.

    Raises:
        DecodeError: not a package, a damaged archive, or a wanted file that is too large.
    """
    yield from each_tar_member(_chunks(data, _find(data, "data.tar"), MAX_DATA), wanted, limit)


def _chunks(data: memoryview, member: _ArMember, limit: int) -> "Iterator[bytes]":
    content = data[member.start : member.end]
    if member.name.endswith(".tar"):
        for at in range(0, len(content), CHUNK):
            yield bytes(content[at : at + CHUNK])
    else:
        yield from each_chunk(content, limit)


def _find(data: memoryview, stem: str) -> _ArMember:
    for member in _each_ar_member(data):
        if member.name == stem or member.name.startswith(stem + "."):
            return member
    raise DecodeError("deb package", f"no member {stem}", 0)


def _each_ar_member(data: memoryview) -> "Iterator[_ArMember]":
    if bytes(data[: len(_AR_MAGIC)]) != _AR_MAGIC:
        raise DecodeError("deb package", "not an ar archive", 0)
    at = len(_AR_MAGIC)
    for _ in range(_MAX_AR_MEMBERS):
        if at >= len(data):
            return
        header = bytes(data[at : at + _AR_HEADER])
        digits = header[48:58].rstrip()
        if len(header) < _AR_HEADER or header[58:] != _AR_END or not digits.isdigit():
            raise DecodeError("deb package", "a malformed ar header", at)
        start = at + _AR_HEADER
        end = start + int(digits)
        if end > len(data):
            raise DecodeError("deb package", "cut off", at)
        yield _ArMember(header[:16].decode("latin-1").rstrip().rstrip("/"), start, end)
        at = end + end % 2


def _fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        match = _FIELD.fullmatch(line)
        if match is not None:
            last = match[1]
            fields.setdefault(last, match[2].strip())
        elif last and line[:1] in {" ", "\t"}:
            fields[last] += "\n" + line.strip()
    return fields
