from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.lab.store import cache_directory


@pytest.fixture(autouse=True)
def _no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYPERVIGIL_LAB", raising=False)


def test_a_setting_is_followed_unless_a_folder_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERVIGIL_LAB", str(tmp_path / "set"))
    assert cache_directory(None) == tmp_path / "set"
    assert cache_directory(tmp_path / "chosen") == tmp_path / "chosen"


def test_the_users_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory(None) == tmp_path / "hypervigil" / "lab"
    assert cache_directory(tmp_path / "mine").is_dir()


def test_without_a_setting_it_is_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory(None) == tmp_path / ".cache" / "hypervigil" / "lab"


def test_what_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="choose another with HYPERVIGIL_LAB"):
        cache_directory(tmp_path / "file" / "below")


def test_what_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UsageError, match="not writable"):
        cache_directory(tmp_path)
