import hashlib
import io
import random
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hypervigil.app import bundle, sources
from hypervigil.app.bundle import Manifest, Part, read_bundle, verify_bundle, write_bundle
from hypervigil.app.integrity import Options, Outcome, integrity
from hypervigil.app.sources import open_source
from hypervigil.core.errors import DecodeError, HypervigilError, UsageError
from tests.app.live import LiveImage
from tests.linux.host_builder import host

AS_OF = "2026-01-31T12:00:00Z"
OPTIONS = Options(as_of=AS_OF)
Change = Callable[[dict[str, bytes]], None]


def silent(_what: str, _done: int, _total: int) -> None:
    pass


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "host.raw"
    path.write_bytes(host().data)
    return path


@pytest.fixture(scope="module")
def outcome(image: Path) -> Outcome:
    with open_source(str(image)) as source:
        return integrity(source, OPTIONS, silent)


@pytest.fixture(scope="module")
def written(outcome: Outcome, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("bundle") / "bundle"
    write_bundle(str(path), outcome, OPTIONS, who="a tester", how="memory image, by digest")
    return path.read_bytes()


def changed(written: bytes, path: Path, change: Change) -> str:
    """A bundle whose files were changed by somebody who writes a sound archive."""
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path)


def with_manifest(files: dict[str, bytes], **fields: object) -> None:
    manifest = msgspec.json.decode(files["manifest.json"], type=Manifest)
    files["manifest.json"] = msgspec.json.encode(msgspec.structs.replace(manifest, **fields))


def part(name: str, data: bytes) -> Part:
    return Part(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def test_a_bundle_of_an_image_is_judged_again_to_the_byte(written: bytes, image: Path, tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(written)
    verified = verify_bundle(str(path), str(image), silent)
    assert verified.same
    assert (verified.manifest.who, verified.manifest.when, verified.manifest.target) == ("a tester", AS_OF, "host.raw")
    assert verified.outcome.report.verdict == "incomplete"


def test_another_name_of_the_same_image_changes_nothing_but_the_name(
    written: bytes, image: Path, tmp_path: Path
) -> None:
    (tmp_path / "bundle").write_bytes(written)
    (tmp_path / "renamed.raw").write_bytes(image.read_bytes())
    verified = verify_bundle(str(tmp_path / "bundle"), str(tmp_path / "renamed.raw"), silent)
    assert verified.manifest.evidence.name == "host.raw"
    assert verified.outcome.report.run.target == "host.raw"


def test_the_same_outcome_gives_the_same_bytes(outcome: Outcome, written: bytes, tmp_path: Path) -> None:
    again = tmp_path / "again"
    write_bundle(str(again), outcome, OPTIONS, who="a tester", how="memory image, by digest")
    assert again.read_bytes() == written


def test_a_bundle_of_a_live_machine_needs_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "attach_qemu", lambda _: LiveImage(bytearray(host().data)))
    with open_source("qemu:12345") as source:
        outcome = integrity(source, OPTIONS, silent)
    assert outcome.recording is not None
    path = str(tmp_path / "bundle")
    manifest = write_bundle(path, outcome, OPTIONS, who="a tester", how="live")
    assert [p.name for p in manifest.parts] == ["report.json", "memory.recording"]
    verified = verify_bundle(path, "", silent)
    assert verified.same
    assert verified.outcome.recording is None


def test_references_travel_with_the_bundle(outcome: Outcome, tmp_path: Path) -> None:
    options = Options(as_of=AS_OF, references=(("/somewhere/of/mine/types.btf", b"one"), ("types.btf", b"two")))
    path = str(tmp_path / "bundle")
    write_bundle(path, outcome, options, who="", how="")
    _, contents = read_bundle(path)
    assert {name: data for name, data in contents.items() if name.startswith("ref")} == {
        "references/0-types.btf": b"one",
        "references/1-types.btf": b"two",
    }


def test_without_its_image_a_bundle_cannot_be_judged(written: bytes, tmp_path: Path) -> None:
    (tmp_path / "bundle").write_bytes(written)
    with pytest.raises(UsageError, match=r"does not hold it; give host\.raw with --image"):
        verify_bundle(str(tmp_path / "bundle"), "", silent)


def test_another_image_is_told_from_the_right_one(written: bytes, tmp_path: Path) -> None:
    (tmp_path / "bundle").write_bytes(written)
    data = bytearray(host().data)
    data[-1] ^= 1
    (tmp_path / "other.raw").write_bytes(data)
    with pytest.raises(UsageError, match=r"other\.raw: not the image of this bundle; its digest is sha256-4m:"):
        verify_bundle(str(tmp_path / "bundle"), str(tmp_path / "other.raw"), silent)


def test_a_forged_report_is_not_the_same(written: bytes, image: Path, tmp_path: Path) -> None:
    def forge(files: dict[str, bytes]) -> None:
        files["report.json"] = files["report.json"].replace(b"builder@example", b"builder@changed")
        with_manifest(files, parts=(part("report.json", files["report.json"]),))

    assert not verify_bundle(changed(written, tmp_path / "b", forge), str(image), silent).same


def alter_report(files: dict[str, bytes]) -> None:
    files["report.json"] = files["report.json"].replace(b"holds", b"HOLDS", 1)


def drop_report(files: dict[str, bytes]) -> None:
    del files["report.json"]


def drop_manifest(files: dict[str, bytes]) -> None:
    del files["manifest.json"]


def unlist_report(files: dict[str, bytes]) -> None:
    with_manifest(files, parts=())


def break_manifest(files: dict[str, bytes]) -> None:
    files["manifest.json"] = b"{"


def strange_manifest(files: dict[str, bytes]) -> None:
    files["manifest.json"] = b'{"version": "one"}'


def newer(files: dict[str, bytes]) -> None:
    with_manifest(files, version=2)


def no_report_inside(files: dict[str, bytes]) -> None:
    files["report.json"] = b"[]"
    with_manifest(files, parts=(part("report.json", b"[]"),))


def too_many_parts(files: dict[str, bytes]) -> None:
    files |= {f"p{n}": b"" for n in range(300)}
    with_manifest(files, parts=tuple(part(name, data) for name, data in files.items() if name != "manifest.json"))


TAMPERED: dict[str, tuple[Change, str]] = {
    "report altered": (alter_report, "report.json is not what the manifest says"),
    "report missing": (drop_report, "report.json is missing"),
    "manifest missing": (drop_manifest, "manifest.json is missing"),
    "report not listed": (unlist_report, "it holds no report"),
    "manifest cut": (break_manifest, "is no evidence bundle"),
    "manifest of another shape": (strange_manifest, "is no evidence bundle"),
    "newer layout": (newer, "layout version 2 is not known; use a newer Hypervigil"),
    "report of another shape": (no_report_inside, "JSON report"),
    "300 parts": (too_many_parts, "parts"),
}


@pytest.mark.parametrize("tampering", TAMPERED)
def test_a_tampered_bundle_is_refused_by_what_is_wrong(written: bytes, tmp_path: Path, tampering: str) -> None:
    change, message = TAMPERED[tampering]
    with pytest.raises(DecodeError, match=message):
        read_bundle(changed(written, tmp_path / "bundle", change))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive at all", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bundle").write_bytes(content)
    with pytest.raises(DecodeError):
        read_bundle(str(tmp_path / "bundle"))


def test_a_bundle_that_cannot_be_read_or_written_is_the_users_error(outcome: Outcome, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_bundle(str(tmp_path / "nowhere"))
    for path, why in ((tmp_path / "no" / "folder", "no such file"), (Path("/dev/full"), "no space left")):
        with pytest.raises(UsageError, match=why):
            write_bundle(str(path), outcome, OPTIONS, who="", how="")


def test_a_bomb_is_refused_before_it_goes_off(written: bytes, tmp_path: Path) -> None:
    def plant(files: dict[str, bytes]) -> None:
        files["memory.recording"] = bytes(bundle.MAX_UNPACKED_AT_ONCE * 2)

    def packed_manifest(files: dict[str, bytes]) -> None:
        files["manifest.json"] += b" " * (bundle.MAX_MANIFEST + 1)

    def listed(files: dict[str, bytes]) -> None:
        plant(files)
        with_manifest(files, parts=(part("memory.recording", files["memory.recording"]),))

    with pytest.raises(DecodeError, match=r"memory\.recording would unpack to .* times its size"):
        read_bundle(changed(written, tmp_path / "one", listed))
    with pytest.raises(DecodeError, match=r"manifest\.json is larger than"):
        read_bundle(changed(written, tmp_path / "two", packed_manifest))


def test_parts_that_are_too_large_together_are_refused(
    written: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "_MAX_TOTAL", 1000)
    (tmp_path / "bundle").write_bytes(written)
    with pytest.raises(DecodeError, match="larger than"):
        read_bundle(str(tmp_path / "bundle"))


def test_damaged_bundles_are_refused_without_a_fault_of_ours(written: bytes, tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311 - repeatable, not secret
    path = tmp_path / "bundle"
    refused = 0
    for _ in range(150):
        data = bytearray(written)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice((len(data), chance.randrange(len(data))))])
        try:
            read_bundle(str(path))
        except HypervigilError:
            refused += 1
    assert refused > 100


def test_a_stream_that_does_not_unpack_is_refused(written: bytes, tmp_path: Path) -> None:
    data = bytearray(written)
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        info = archive.getinfo("report.json")
    start = info.header_offset + 30 + len("report.json")
    data[start : start + 64] = b"\xff" * 64
    with pytest.raises(zlib.error):
        zlib.decompress(bytes(data[start : start + info.compress_size]), -15)
    (tmp_path / "bundle").write_bytes(data)
    with pytest.raises(DecodeError):
        read_bundle(str(tmp_path / "bundle"))


def test_a_part_packed_in_another_way_is_refused(written: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "bundle", "w", zipfile.ZIP_BZIP2) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    with pytest.raises(DecodeError, match="packed by method 12"):
        read_bundle(str(tmp_path / "bundle"))
