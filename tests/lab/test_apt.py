from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.lab import apt
from hypervigil.lab.apt import Suite, fields, kernel_dependencies, mirrors, sources

TARGETS = """\
http://mirror.test/debian/\tDebian\tDebian
http://mirror.test/debian/\tDebian\tDebian
http://mirror.test/debian-security/\tDebian\tDebian-Security
http://other.test/cloud/\tSomebody\tTools
http://fresh.test/debian/\t\t
"""

STANZAS = {
    "linux-image-cloud-amd64": "Version: 7.2-1\nDepends: linux-image-7.2-cloud-amd64\n",
    "linux-image-7.2-cloud-amd64": "Version: 7.2-1\nDepends: linux-binary-7.2-cloud-amd64 (= 7.2-1), linux-base",
    "linux-binary-7.2-cloud-amd64": "Version: 7.2-1\nDescription: a kernel\n more\n\nVersion: 0-old\n",
}


def test_the_machines_own_mirrors_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "run", lambda *_: TARGETS)
    assert mirrors() == [
        ("http://mirror.test/debian/", False),
        ("http://mirror.test/debian-security/", True),
        ("http://fresh.test/debian/", False),
    ]


def test_a_machine_without_a_mirror_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "run", lambda *_: "http://other.test/cloud/\tSomebody\tTools\n")
    with pytest.raises(UsageError, match="no Debian source"):
        mirrors()


@pytest.mark.parametrize(("suite", "lines"), [("bookworm", 2), ("sid", 1), ("bookworm-backports", 1)])
def test_only_a_released_suite_has_a_security_archive(suite: str, lines: int) -> None:
    text = sources(suite, [("http://mirror.test/debian/", False), ("http://mirror.test/debian-security/", True)])
    assert len(text.splitlines()) == lines
    assert f" {suite} main" in text
    assert (f"{suite}-security" in text) == (lines == 2)


def test_the_first_stanza_counts() -> None:
    assert fields("Package: a\nDescription: b\n more: c\n\nPackage: d\n") == {"Package": "a", "Description": "b"}


def test_parts_of_a_kernel_are_told_from_other_packages() -> None:
    depends = "linux-image-6.1.0-9-amd64 (= 6.1-1) | linux-image-x, kmod, linux-base (>= 4.3~), linux-headers-6.1"
    assert kernel_dependencies(depends) == ["linux-image-6.1.0-9-amd64"]
    assert kernel_dependencies("") == []


def test_a_kernel_is_all_its_numbered_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(apt, "run", lambda command, _failure: STANZAS[command[-1]])
    assert Suite("sid", tmp_path).kernel_parts("linux-image-cloud-amd64") == {
        "linux-image-7.2-cloud-amd64": "7.2-1",
        "linux-binary-7.2-cloud-amd64": "7.2-1",
    }


def test_lists_are_fetched_once_a_day_into_a_folder_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []

    def record(command: list[str], *_: object) -> str:
        commands.append(command)
        return TARGETS

    monkeypatch.setattr(apt, "run", record)
    suite = Suite("trixie", tmp_path / "trixie")
    suite.refresh()
    suite.refresh()
    updates = [command for command in commands if command[-1] == "update"]
    assert len(updates) == 1
    assert f"Dir::State::Lists={tmp_path}/trixie/lists" in updates[0]
    assert "Dir::Etc::SourceParts=/dev/null" in updates[0]
    assert "mirror.test/debian/ trixie main" in (tmp_path / "trixie/sources.list").read_text()
