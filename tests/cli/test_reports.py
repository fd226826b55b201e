import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.mark.parametrize(("name", "status"), [("clean", 0), ("violated", 1), ("undecided", 3), ("huge", 1)])
def test_the_status_is_that_of_the_report(run: Run, saved: Path, name: str, status: int) -> None:
    assert run("report", saved / f"{name}.json", "-q").status == status


def test_a_report_that_was_told_otherwise_is_refused(run: Run, saved: Path, tmp_path: Path) -> None:
    forged = json.loads((saved / "violated.json").read_text())
    forged |= {"verdict": "holds", "exit_status": 0}
    (tmp_path / "forged.json").write_text(json.dumps(forged))
    ran = run("report", tmp_path / "forged.json")
    assert (ran.status, ran.out) == (2, "")
    assert "it says holds (exit status 0), but its findings give violated" in ran.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "JSON report: Input data was truncated"),
        (b"{}", "JSON report: no schema_version; this is not a report of hypervigil"),
        (b'{"schema_version": "9.0"}', "report schema '9.0' is not 1.x"),
        (b"\xff\xfe", "JSON report: "),
        (b"[" * 100_000, "JSON report: "),
        (b"PK\3\4", "JSON report: JSON is malformed"),
    ],
)
def test_what_is_no_report_is_told(run: Run, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "saved").write_bytes(content)
    ran = run("report", tmp_path / "saved")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"hypervigil: {said}")


def test_a_file_that_is_not_there_is_told(run: Run, tmp_path: Path) -> None:
    ran = run("report", tmp_path / "none")
    assert (ran.status, ran.out) == (2, "")
    assert f"'{tmp_path / 'none'}' does not exist" in ran.err
    assert run("report", tmp_path).status == 2


def test_a_file_that_cannot_be_read_is_told(run: Run) -> None:
    place = "/proc/self/mem"  # it is there and may be opened, but nothing is at its start
    assert run("report", place) == (2, "", f"hypervigil: {place}: input/output error\n")
