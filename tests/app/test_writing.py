import os
from pathlib import Path

import pytest

from hypervigil.app.writing import write_whole
from hypervigil.core.errors import UsageError


def test_a_file_is_written_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    write_whole(tmp_path / "report", b"one")
    write_whole(str(tmp_path / "report"), b"two")
    assert (tmp_path / "report").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_what_stood_there_stays_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report").write_bytes(b"earlier")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match=r"report: no space left on device$"):
        write_whole(tmp_path / "report", b"later")
    assert (tmp_path / "report").read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_file_that_may_be_written_but_not_replaced_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report").write_bytes(b"earlier")

    def sticky(_: Path, __: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "replace", sticky)
    write_whole(tmp_path / "report", b"later")
    assert (tmp_path / "report").read_bytes() == b"later"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    with pytest.raises(UsageError, match="operation not permitted"):
        write_whole(tmp_path / "other", b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_device_is_written_in_place() -> None:
    write_whole("/dev/null", b"gone")
    with pytest.raises(UsageError, match="/dev/full: no space left on device"):
        write_whole("/dev/full", b"gone")
    assert Path("/dev/full").is_char_device()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "report")
    write_whole(tmp_path / "link", b"one")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "report").read_bytes() == b"one"


@pytest.mark.parametrize("name", ["none/report", "."])
def test_a_place_that_cannot_be_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"no such file or directory|is a directory"):
        write_whole(tmp_path / name, b"one")
