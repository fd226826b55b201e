import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest

from hypervigil.app import sources
from hypervigil.report.json import render
from tests.app.live import LiveImage
from tests.cli.conftest import Run
from tests.linux.host_builder import host
from tests.report import reports

AS_OF = ("--as-of", "2026-01-31T12:00:00Z")
OPTIONS = (*AS_OF, "--who", "an analyst")


@pytest.fixture
def bundle(run: Run, altered: Path, tmp_path: Path) -> Path:
    path = tmp_path / "altered.bundle"
    assert run("collect", altered, "-o", path, *OPTIONS).status == 1
    return path


def test_collecting_says_what_is_in_the_bundle_and_ends_with_the_verdict(
    run: Run, altered: Path, tmp_path: Path
) -> None:
    ran = run("collect", altered, "-o", tmp_path / "b", *OPTIONS)
    digest = json.loads(run("integrity", altered, *AS_OF, "--json").out)["evidence"][0]["digest"]
    said = f"{tmp_path / 'b'}: memory image, by digest; verdict violated, evidence {digest}\n"
    assert ran == (1, said, "")
    with zipfile.ZipFile(tmp_path / "b") as archive:
        assert json.loads(archive.read("manifest.json"))["who"] == "an analyst"


def test_who_collects_is_the_login_name_unless_told(
    run: Run, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "somebody")
    assert run("collect", sound, "-o", tmp_path / "b", *AS_OF, "-q").status == 3
    with zipfile.ZipFile(tmp_path / "b") as archive:
        assert json.loads(archive.read("manifest.json"))["who"] == "somebody"


def test_a_bundle_must_be_given_a_place(run: Run, altered: Path) -> None:
    ran = run("collect", altered)
    assert ran.status == 2
    assert "Missing option '-o' / '--output'" in ran.err
    assert run("collect", altered, "-o", "/dev/full").err == "hypervigil: /dev/full: no space left on device\n"


def test_what_was_collected_is_verified_and_shown(run: Run, altered: Path, bundle: Path) -> None:
    ran = run("verify", bundle, "--image", altered, "--json")
    assert (ran.status, ran.out) == (1, run("integrity", altered, *AS_OF, "--json").out)
    assert ran.err == (
        "hypervigil: the same report, byte for byte; collected by an analyst at 2026-01-31T12:00:00Z "
        "(memory image, by digest)\n"
    )


def test_a_running_machine_is_verified_from_the_bundle_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "attach_qemu", lambda _: LiveImage(bytearray(host().data)))
    ran = run("collect", "qemu:7", "-o", tmp_path / "b", *OPTIONS)
    assert ran.status == 3
    assert ran.out.startswith(f"{tmp_path / 'b'}: recording of a running QEMU, not paused; verdict incomplete, ")
    verified = run("verify", tmp_path / "b", "-q")
    assert verified.status == 3
    assert verified.err.startswith("hypervigil: the same report, byte for byte; ")
    assert verified.err.endswith("(recording of a running QEMU, not paused)\n")


def test_an_image_that_is_needed_is_asked_for(run: Run, bundle: Path) -> None:
    said = "this bundle names its image and does not hold it; give altered.raw with --image"
    assert run("verify", bundle) == (2, "", f"hypervigil: {said}\n")


def test_another_image_is_refused(run: Run, bundle: Path, sound: Path) -> None:
    ran = run("verify", bundle, "--image", sound)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"hypervigil: {sound}: not the image of this bundle; its digest is ")


def rewritten(bundle: Path, **manifest: object) -> None:
    """Give the bundle another report than the one it was made with, in a sound archive."""
    with zipfile.ZipFile(bundle) as archive:
        told = json.loads(archive.read("manifest.json"))
    other = render(reports.clean()).encode()
    told |= manifest
    told["parts"] = [{"name": "report.json", "size": len(other), "sha256": hashlib.sha256(other).hexdigest()}]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("manifest.json", json.dumps(told))
        archive.writestr("report.json", other)
    bundle.write_bytes(packed.getvalue())


def test_a_report_that_the_evidence_does_not_give_is_told_in_capitals(
    run: Run, bundle: Path, altered: Path, tmp_path: Path
) -> None:
    rewritten(bundle)
    ran = run("verify", bundle, "--image", altered, "-o", tmp_path / "shown")
    assert ran.status == 1
    assert ran.err.startswith("hypervigil: NOT the report of the bundle; collected by an analyst at ")
    assert (tmp_path / "shown").read_text().startswith("VIOLATED: altered.raw")


def test_a_report_of_another_version_may_differ_and_that_is_said(run: Run, bundle: Path, sound: Path) -> None:
    digest = json.loads(run("integrity", sound, "--json").out)["evidence"][0]
    rewritten(bundle, tool_version="0.0.9", evidence=digest)
    ran = run("verify", bundle, "--image", sound, "-q")
    assert ran.status == 1  # although its own verdict would be 3: what the bundle says is not so
    assert ran.err.startswith("hypervigil: NOT the report of the bundle; it was made by version 0.0.9; collected by ")


def test_what_is_no_bundle_is_told(run: Run, sound: Path, tmp_path: Path) -> None:
    ran = run("verify", sound)
    assert (ran.status, ran.err) == (2, f"hypervigil: bundle: {sound} is no evidence bundle: File is not a zip file\n")
    assert f"'{tmp_path / 'none'}' does not exist" in run("verify", tmp_path / "none").err


def test_a_part_that_was_changed_is_told(run: Run, bundle: Path, altered: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["report.json"] = files["report.json"].replace(b"violated", b"violateD", 1)
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    said = "hypervigil: bundle: report.json is not what the manifest says\n"
    assert run("verify", bundle, "--image", altered) == (2, "", said)
