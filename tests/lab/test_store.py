from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.lab.store import cache_directory, clean


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


def fill(cache: Path) -> None:
    for name in ("images/6.1/image.raw.zst", "kernels/one/root/vmlinuz", "apt/sid/lists/x", "running/7", "nest-1"):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(b"x" * 8192)


def test_kernels_outlive_a_clean_unless_all_is_wanted(tmp_path: Path) -> None:
    fill(tmp_path)
    assert clean(tmp_path) == 2 * 8192
    assert sorted(path.name for path in tmp_path.iterdir()) == ["apt", "kernels", "running"]
    fill(tmp_path)
    clean(tmp_path, everything=True)
    assert [path.name for path in tmp_path.iterdir()] == ["running"]


def test_what_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    fill(tmp_path)
    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(UsageError, match="Permission denied"):
        clean(tmp_path)
