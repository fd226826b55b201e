from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.lab import needs


def programs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *missing: str, busybox: bytes = b"\x7fELF static"
) -> None:
    (tmp_path / "busybox").write_bytes(busybox)
    (tmp_path / "libc.a").touch()
    found = dict.fromkeys(needs._PROGRAMS, str(tmp_path / "busybox"))
    monkeypatch.setattr("shutil.which", lambda name: None if name in missing else found[name])
    monkeypatch.setattr(needs, "_LIBRARY", tmp_path / "libc.a")


def test_nothing_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs(monkeypatch, tmp_path)
    needs.check_needs()


def test_missing_packages_are_named_with_the_line_that_brings_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs(monkeypatch, tmp_path, "qemu-system-x86_64", "busybox")
    (tmp_path / "libc.a").unlink()
    with pytest.raises(UsageError, match=r"apt-get install busybox-static libc6-dev qemu-system-x86$"):
        needs.check_needs()


def test_a_busybox_that_needs_libraries_will_not_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs(monkeypatch, tmp_path, busybox=b"\x7fELF /lib64/ld-linux-x86-64.so.2")
    with pytest.raises(UsageError, match=r"apt-get install busybox-static$"):
        needs.check_needs()
