import re
from pathlib import Path

import msgspec
import pytest

from hypervigil.app import integrity as module
from hypervigil.app.integrity import Options, as_of, integrity, now
from hypervigil.app.sources import Source, open_source
from hypervigil.core.digest import digest_of
from hypervigil.core.errors import HypervigilError, UsageError
from hypervigil.core.evidence import Evidence
from tests.extract.tamperings import operation, system_call
from tests.linux.host_builder import host

OPTIONS = Options(as_of="2026-01-31T12:00:00Z")


def silent(_what: str, _done: int, _total: int) -> None:
    pass


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z"),
        ("2026-01-31T12:00:00", "2026-01-31T12:00:00Z"),
        ("2026-01-31", "2026-01-31T00:00:00Z"),
    ],
)
def test_a_moment_is_written_in_utc(text: str, moment: str) -> None:
    assert as_of(text) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "31.1.2026", "2026-13-01"])
def test_what_is_no_moment_is_refused_with_how_to_write_it(text: str) -> None:
    with pytest.raises(UsageError, match=r"--as-of .*: write it like 2026-01-31T12:00:00Z"):
        as_of(text)


def test_now_is_a_moment() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", now())
    assert as_of(now()) <= now()


def test_an_image_is_judged_in_a_process_of_its_own(tmp_path: Path) -> None:
    image = host()
    system_call(image)
    path = tmp_path / "host.raw"
    path.write_bytes(image.data)
    steps: list[str] = []
    with open_source(str(path)) as source:
        outcome = integrity(source, OPTIONS, lambda what, _done, _total: steps.append(what), command="scan")
    report = outcome.report
    assert (report.run.command, report.run.target, report.run.as_of) == ("scan", "host.raw", OPTIONS.as_of)
    assert (report.exit_status, outcome.faults, outcome.recording) == (1, (), None)
    assert report.evidence[0].digest == digest_of(bytes(image.data))
    assert [index for index, _ in report.evidence[0].chunks] == [0]
    assert (steps[0], steps[-1]) == ("locating the kernel", "judging")


def test_two_runs_give_the_same_report(tmp_path: Path) -> None:
    image = host()
    operation(image)
    path = tmp_path / "host.raw"
    path.write_bytes(image.data)
    reports = []
    for _ in range(2):
        with open_source(str(path)) as source:
            reports.append(integrity(source, OPTIONS, silent).report)
    assert msgspec.json.encode(reports[0]) == msgspec.json.encode(reports[1])


def test_a_moment_that_was_not_named_is_the_present(tmp_path: Path) -> None:
    path = tmp_path / "host.raw"
    path.write_bytes(b"nothing" * 4096)
    before = now()
    with open_source(str(path)) as source:
        report = integrity(source, Options(), silent).report
    assert before <= report.run.as_of <= now()
    assert report.verdict == "unknown"


@pytest.mark.parametrize("said", [b"", b"\xc1", b"\x80", msgspec.msgpack.encode({"report": 1})])
def test_a_process_that_says_something_else_gave_no_report(
    said: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "host.raw").write_bytes(b"x")
    monkeypatch.setattr(module, "run_confined", lambda *_: said)
    with (
        open_source(str(tmp_path / "host.raw")) as source,
        pytest.raises(HypervigilError, match="the process that read the evidence gave no report"),
    ):
        integrity(source, OPTIONS, silent)


def test_a_digest_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    (tmp_path / "host.raw").write_bytes(b"x" * 4096)

    def describe(_chunks: tuple[int, ...]) -> Evidence:
        raise UsageError("the image is gone")

    with open_source(str(tmp_path / "host.raw")) as source:
        silent_source: Source = source._replace(describe=describe, begin=lambda: None)
        with pytest.raises(UsageError, match="the image is gone"):
            integrity(silent_source, OPTIONS, silent)
