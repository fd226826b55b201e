"""Evidence bundles: what a verdict was reached from, kept so that it can be reached again.

A bundle is a zip archive (stored, fixed time stamps and order, so that the same content gives the same bytes)::

    manifest.json       who collected it, when and how; the settings; name, size and digest of every part
    report.json         the report
    memory.recording    every byte that was read of a live source; absent for images, which the manifest names by digest
    references/N-NAME   what the user gave to compare with

`verify` judges it again, offline, and compares the reports byte by byte.
"""

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from hypervigil.app.integrity import Options, Outcome, integrity
from hypervigil.app.judging import Progress
from hypervigil.app.sources import Source, open_source, replay
from hypervigil.app.writing import write_whole
from hypervigil.core.errors import DecodeError, UsageError
from hypervigil.core.evidence import Evidence
from hypervigil.report.json import read_json
from hypervigil.report.json import render as render_json

VERSION = 1
"""Version of the bundle's layout."""

_MANIFEST, _REPORT, _RECORDING, _REFERENCES = "manifest.json", "report.json", "memory.recording", "references/"
_EPOCH = (1980, 1, 1, 0, 0, 0)
MAX_MANIFEST = 1 << 24
"""Bytes of a manifest."""

MAX_UNPACKED_AT_ONCE = 1 << 26
"""Bytes of a part that are unpacked however small it is packed; a larger part may not be `_MAX_RATIO` times smaller."""

_MAX_RATIO = 200
_MAX_TOTAL = 1 << 33
_MAX_PARTS = 256
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    msgspec.DecodeError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    struct.error,
)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the bundle."""

    name: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the bundle is.

    Attributes:
        who: the person or role that collected it, as they said.
        how: the command's kind of target and what limits it.
        evidence: the memory; for an image, by digest.
    """

    version: int
    tool_version: str
    who: str
    when: str
    how: str
    target: str
    profile: str
    evidence: Evidence
    parts: tuple[Part, ...]


class Verified(NamedTuple):
    """The result of judging a bundle again.

    Attributes:
        manifest: the bundle's.
        outcome: the new judgement.
        same: whether the new report equals the bundle's, byte for byte.
    """

    manifest: Manifest
    outcome: Outcome
    same: bool


def write_bundle(path: str, outcome: Outcome, options: Options, *, who: str, how: str) -> Manifest:
    """Write a bundle.

    Raises:
        UsageError: the file cannot be written.
    """
    report = outcome.report
    contents: dict[str, bytes] = {_REPORT: render_json(report).encode()}
    if outcome.recording is not None:
        contents[_RECORDING] = outcome.recording
    for index, (name, data) in enumerate(options.references):
        contents[f"{_REFERENCES}{index}-{Path(name).name}"] = data
    manifest = Manifest(
        version=VERSION,
        tool_version=report.run.tool_version,
        who=who,
        when=report.run.as_of,
        how=how,
        target=report.run.target,
        profile=report.run.profile,
        evidence=report.evidence[0],
        parts=tuple(_part(name, data) for name, data in contents.items()),
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        _store(archive, _MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        for name, data in contents.items():
            _store(archive, name, data)
    write_whole(path, file.getvalue())
    return manifest


def _part(name: str, data: bytes) -> Part:
    return Part(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _store(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=_EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data, compresslevel=1)


def verify_bundle(path: str, image: str, progress: Progress) -> Verified:
    """Judge a bundle again.

    Args:
        path: the bundle.
        image: the image that the bundle names, where it holds no recording; else empty.
        progress: told of every step.

    Raises:
        UsageError: the bundle cannot be read, or the image is needed or is another one.
        DecodeError: it is no bundle, or a part is not what the manifest says.
    """
    manifest, contents = read_bundle(path)
    references = tuple(
        (name.removeprefix(_REFERENCES).partition("-")[2], data)
        for name, data in contents.items()
        if name.startswith(_REFERENCES)
    )
    options = Options(profile=manifest.profile, as_of=manifest.when, references=references)
    with _source(manifest, contents, image) as source:
        outcome = integrity(source, options, progress)
    if outcome.report.evidence[0].digest != manifest.evidence.digest:
        raise UsageError(
            f"{image}: not the image of this bundle; its digest is {outcome.report.evidence[0].digest}, "
            f"the bundle's is {manifest.evidence.digest}"
        )
    again = render_json(outcome.report).encode()
    return Verified(manifest, outcome, again == contents[_REPORT])


def read_bundle(path: str) -> tuple[Manifest, dict[str, bytes]]:
    """Read a bundle and check every part against its manifest.

    Raises:
        UsageError: the file cannot be read.
        DecodeError: it is no bundle, or a part is not what the manifest says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = msgspec.json.decode(_read(archive, _MANIFEST, MAX_MANIFEST), type=Manifest)
            if manifest.version != VERSION:
                raise DecodeError("bundle", f"layout version {manifest.version} is not known; use a newer Hypervigil")
            contents = _contents(archive, manifest)
    except OSError as fault:
        raise UsageError(f"{path}: {(fault.strerror or str(fault)).lower()}") from fault
    except _DAMAGES as fault:
        raise DecodeError("bundle", f"{path} is no evidence bundle: {fault}") from fault
    for part in manifest.parts:
        if _part(part.name, contents[part.name]) != part:
            raise DecodeError("bundle", f"{part.name} is not what the manifest says")
    if _REPORT not in contents:
        raise DecodeError("bundle", "it holds no report")
    read_json(contents[_REPORT])
    return manifest, contents


def _contents(archive: zipfile.ZipFile, manifest: Manifest) -> dict[str, bytes]:
    if len(manifest.parts) > _MAX_PARTS:
        raise DecodeError("bundle", f"it lists {len(manifest.parts)} parts; {_MAX_PARTS} are read")
    contents: dict[str, bytes] = {}
    left = _MAX_TOTAL
    for part in manifest.parts:
        contents[part.name] = _read(archive, part.name, left)
        left -= len(contents[part.name])
    return contents


def _read(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Unpack a file of an archive that its sender may have made to fill our memory."""
    try:
        info = archive.getinfo(name)
    except KeyError as fault:
        raise DecodeError("bundle", f"{name} is missing") from fault
    if info.compress_type not in _METHODS:
        raise DecodeError("bundle", f"{name} is packed by method {info.compress_type}, which no bundle uses")
    if info.file_size > limit:
        raise DecodeError("bundle", f"{name} is larger than the {limit} bytes that are read of it")
    if info.file_size > max(MAX_UNPACKED_AT_ONCE, _MAX_RATIO * info.compress_size):
        raise DecodeError("bundle", f"{name} would unpack to more than {_MAX_RATIO} times its size")
    with archive.open(info) as file:
        out = io.BytesIO()
        while piece := file.read(1 << 20):
            out.write(piece)
            if out.tell() > info.file_size:
                raise DecodeError("bundle", f"{name} is larger than it says")
        return out.getvalue()


@contextmanager
def _source(manifest: Manifest, contents: dict[str, bytes], image: str) -> Iterator[Source]:
    if _RECORDING in contents:
        yield replay(memoryview(contents[_RECORDING]), manifest.target)
        return
    if not image:
        raise UsageError(
            f"this bundle names its image and does not hold it; give {manifest.evidence.name} with --image"
        )
    with open_source(image) as source:
        yield source._replace(name=manifest.target)
