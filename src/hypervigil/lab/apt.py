"""Kernel packages from the machine's own Debian mirror, for any suite, the machine's own package lists untouched.

The mirror is the one that this machine's apt is configured with (`apt-get indextargets`), so it works behind a
proxy, with a local mirror, and names no host here. Source: apt-get(8), apt.conf(5), sources.list(5).
"""

import re
import time
from pathlib import Path

from hypervigil.core.errors import UsageError
from hypervigil.lab.programs import run

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_KERNEL_PART = re.compile(r"linux-(?:image|binary|modules|base)-(?:\d|cloud|rt|amd64).*")
_NUMBERED = re.compile(r"linux-[a-z]+-(?:unsigned-)?\d")
_WITHOUT_SECURITY = frozenset({"sid", "unstable", "experimental"})
_FRESH = 24 * 3600
_MOST_PARTS = 16


class Suite:
    """One suite of Debian, with lists of its own below `directory`."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self._directory = directory

    def _options(self) -> list[str]:
        here = self._directory
        settings = {
            "Dir::State": f"{here}/state",
            "Dir::State::Lists": f"{here}/lists",
            "Dir::State::status": f"{here}/status",
            "Dir::Cache": f"{here}/cache",
            "Dir::Etc::SourceList": f"{here}/sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Acquire::Languages": "none",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "root",
        }
        return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def refresh(self) -> None:
        """Fetches the suite's package lists unless they are younger than a day.

        Raises:
            UsageError: this machine has no Debian mirror, or it cannot be reached.
        """
        stamp = self._directory / "refreshed"
        if stamp.exists() and time.time() - stamp.stat().st_mtime < _FRESH:
            return
        for name in ("state", "lists/partial", "cache/archives/partial"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        (self._directory / "status").touch()
        (self._directory / "sources.list").write_text(sources(self.name, mirrors()))
        run(["apt-get", "-qq", *self._options(), "update"], f"cannot fetch the package lists of {self.name}")
        stamp.touch()

    def show(self, package: str) -> dict[str, str]:
        """The newest version's fields of a package.

        Raises:
            UsageError: the suite has no such package.
        """
        command = ["apt-cache", *self._options(), "show", "--no-all-versions", package]
        return fields(run(command, f"{self.name} has no package {package}"))

    def kernel_parts(self, package: str) -> dict[str, str]:
        """The packages that make up the kernel that `package` is or depends on, with their versions.

        Packages without a version in their name hold no files of a kernel and are left out.
        """
        versions: dict[str, str] = {}
        waiting = [package]
        while waiting and len(versions) < _MOST_PARTS:
            name = waiting.pop()
            if name in versions:
                continue
            shown = self.show(name)
            versions[name] = shown["Version"]
            waiting += kernel_dependencies(shown.get("Depends", ""))
        return {name: version for name, version in versions.items() if _NUMBERED.match(name)}

    def download(self, package: str, version: str, directory: Path) -> Path:
        """Fetches one package and returns the file, which apt has verified."""
        before = set(directory.glob("*.deb"))
        command = ["apt-get", "-qq", *self._options(), "download", f"{package}={version}"]
        run(command, f"cannot download {package} {version}", directory)
        new = set(directory.glob(f"{package}_*.deb")) - before
        if not new:
            raise UsageError(f"apt-get left no file for {package} {version}")
        return new.pop()


def mirrors() -> list[tuple[str, bool]]:
    """This machine's Debian archives as (URI, whether it is the security archive), without repetition.

    Raises:
        UsageError: apt knows none.
    """
    form = "$(REPO_URI)\t$(ORIGIN)\t$(LABEL)"
    text = run(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages"],
        "cannot ask apt for its sources",
    )
    found = dict.fromkeys(archive for line in text.splitlines() for archive in _debian_archive(line))
    if not any(not security for _, security in found):
        raise UsageError("apt has no Debian source; add one and run apt-get update")
    return list(found)


def _debian_archive(line: str) -> list[tuple[str, bool]]:
    uri, origin, label = (line + "\t\t").split("\t")[:3]
    if origin not in {"", "Debian"} or (not origin and "/debian" not in uri):
        return []
    return [(uri, label == "Debian-Security" or "/debian-security" in uri)]


def sources(suite: str, archives: list[tuple[str, bool]]) -> str:
    """The text of a sources.list for a suite; only a released suite itself has a security archive."""
    signed = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
    lines = []
    for uri, security in archives:
        if not security:
            lines.append(f"deb {signed}{uri} {suite} main\n")
        elif suite not in _WITHOUT_SECURITY and "-" not in suite:
            lines.append(f"deb {signed}{uri} {suite}-security main\n")
    return "".join(lines)


def fields(stanza: str) -> dict[str, str]:
    """The one-line fields of the first stanza of a control file (deb822(5))."""
    first = stanza.partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines() if line[:1] not in {" ", "#", ""})
    return {key: value.strip() for key, _, value in pairs}


def kernel_dependencies(depends: str) -> list[str]:
    """The names in a Depends field that are parts of a kernel, the first of alternatives."""
    names = (item.split("|")[0].split("(")[0].strip() for item in depends.split(","))
    return [name for name in names if _KERNEL_PART.fullmatch(name)]
