import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from hypervigil.app import judging, sources
from hypervigil.checks import load_checks
from hypervigil.cli import integrity as module
from hypervigil.cli.integrity import options_of
from hypervigil.cli.main import root
from hypervigil.core.check import Check
from hypervigil.core.errors import UsageError
from hypervigil.report.json import read_json
from tests.app.live import LiveImage
from tests.cli.conftest import Run
from tests.extract.tamperings import operation
from tests.linux.host_builder import host

AS_OF = ("--as-of", "2026-01-31T12:00:00Z")
NOBODY = 65534


def test_an_altered_host_is_violated(run: Run, altered: Path) -> None:
    ran = run("integrity", altered, *AS_OF)
    assert (ran.status, ran.err) == (1, "")
    assert ran.out.startswith("VIOLATED: altered.raw is not what it should be: 1 violation in 1 check")
    assert "KVM-001" in ran.out


def test_a_host_that_was_not_fully_seen_is_not_cleared(run: Run, sound: Path) -> None:
    ran = run("integrity", sound, *AS_OF)
    assert (ran.status, ran.err) == (3, "")
    assert ran.out.startswith("INCOMPLETE: sound.raw could not be cleared")


def test_an_image_without_a_kernel_is_not_cleared(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.raw").write_bytes(bytes(1 << 20))
    ran = run("integrity", tmp_path / "empty.raw", "-q")
    assert ran.status == 3
    assert ran.out.startswith("unknown: ")


def test_scan_does_what_integrity_does(run: Run, altered: Path) -> None:
    scanned, judged = (run(command, altered, *AS_OF, "--json") for command in ("scan", "integrity"))
    assert scanned.out == judged.out.replace('"command": "integrity"', '"command": "scan"')
    assert scanned.out != judged.out
    assert (scanned.status, scanned.err) == (judged.status, judged.err)
    context = click.Context(root)
    scan, integrity = (root.get_command(context, name) for name in ("scan", "integrity"))
    assert scan is not None
    assert integrity is not None
    assert [p.name for p in scan.params] == [p.name for p in integrity.params]


def test_the_report_says_when_and_of_what_but_not_where(run: Run, altered: Path) -> None:
    ran = run("integrity", altered, "--as-of", "2026-01-31T13:00:00+01:00", "--json")
    report = read_json(ran.out.encode())
    assert (report.run.as_of, report.run.target) == ("2026-01-31T12:00:00Z", "altered.raw")
    assert str(altered.parent) not in ran.out


def test_a_moment_that_is_none_is_refused_before_anything_is_read(run: Run, altered: Path) -> None:
    ran = run("integrity", altered, "--as-of", "yesterday")
    assert ran == (2, "", "hypervigil: --as-of yesterday: write it like 2026-01-31T12:00:00Z\n")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("none", "none: no such file or directory"),
        ("local", "local: this kind of target is not read; give a memory image, qemu:PID or qemu:SOCKET"),
        ("ssh://host", "ssh://host: this kind of target is not read; give a memory image, qemu:PID or qemu:SOCKET"),
        ("/", "/: a memory image must be a file or a block device; save the stream to a file first"),
        ("/dev/null", "/dev/null: a memory image must be a file or a block device; save the stream to a file first"),
        ("qemu:999999999", "there is no process 999999999"),
        ("qemu:none.sock", "none.sock: no such file or directory; is it the QMP socket of a running QEMU?"),
        ("", "the target is empty; give a memory image, qemu:PID or qemu:SOCKET"),
    ],
)
def test_a_target_that_cannot_be_read_is_told_by_name(run: Run, target: str, said: str) -> None:
    assert run("integrity", target) == (2, "", f"hypervigil: {said}\n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file: there is no memory in it"),
        (b"PK\3\4", "a zip archive (AFF4, or packed): unpack it first"),
        (b"\x1f\x8b\x08", "a file packed with gzip: unpack it first"),
        (b"EMiL\1\0\0\0", "lime header at byte 0x0: cut off"),
        (b"\x7fELF\1", "elf header at byte 0x0: "),
    ],
)
def test_a_file_that_is_not_read_is_told_by_name(run: Run, tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(content)
    ran = run("integrity", path)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"hypervigil: {path}: {said}")


@contextmanager
def nobody() -> Iterator[None]:
    """Be a user who may read little, as root can be for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_right_that_is_missing_is_told(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "host.raw"
    path.write_bytes(b"memory")
    path.chmod(0)
    with nobody():
        assert run("integrity", path) == (2, "", f"hypervigil: {path}: permission denied\n")


def test_a_file_that_cannot_be_read_to_compare_with_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none: no such file or directory"):
        options_of((str(tmp_path / "none"),), (), (), "default", "")


def test_files_to_compare_with_are_read_in_their_order(tmp_path: Path) -> None:
    for name in ("a.deb", "vmlinux", "types.btf"):
        (tmp_path / name).write_text(name)
    given = [(str(tmp_path / name),) for name in ("a.deb", "vmlinux", "types.btf")]
    options = options_of(given[0], given[1], given[2], "default", "")
    assert options.references == (("a.deb", b"a.deb"), ("vmlinux", b"vmlinux"), ("types.btf", b"types.btf"))
    assert (options.profile, options.as_of) == ("default", "")


def test_a_running_machine_is_judged_and_left(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    image = host()
    operation(image)
    machine = LiveImage(bytearray(image.data))
    monkeypatch.setattr(sources, "attach_qemu", lambda _: machine)
    ran = run("integrity", "qemu:7", *AS_OF, "--json")
    report = json.loads(ran.out)
    assert (ran.status, report["run"]["target"]) == (1, "qemu:7")
    assert report["evidence"][0]["kind"] == "memory/recording"
    assert machine.closed


def breaking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one check be broken."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a mistake")

    broken = tuple(
        Check(id=c.id, function=fail, needs=c.needs, about=c.about) if c.id == "KRN-003" else c  # type: ignore[arg-type] # it fails
        for c in load_checks()
    )
    monkeypatch.setattr(judging, "load_checks", lambda: broken)


def test_a_mistake_of_ours_is_told_and_costs_one_check(run: Run, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    breaking(monkeypatch)
    ran = run("integrity", sound, *AS_OF)
    assert (ran.status, ran.err) == (
        3,
        "hypervigil: 1 internal error(s); run with HYPERVIGIL_DEBUG=1 and report what it says\n",
    )
    assert "KRN-003" in ran.out
    monkeypatch.setenv("HYPERVIGIL_DEBUG", "1")
    err = run("integrity", sound, *AS_OF).err
    assert err.startswith("Traceback")
    assert "ZeroDivisionError: a mistake" in err


def test_a_machine_is_left_and_the_bar_ends_when_judging_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UsageError("no luck")

    machine = LiveImage(bytearray(4096))
    monkeypatch.setattr(sources, "attach_qemu", lambda _: machine)
    monkeypatch.setattr(module, "judge", fail)
    assert run("integrity", "qemu:7") == (2, "", "hypervigil: no luck\n")
    assert machine.closed
