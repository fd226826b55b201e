"""Write the reference pages that follow from the code, or check that the stored ones still do.

``python -m tools.reference`` writes them all. ``python -m tools.reference --check`` writes nothing and names each
stored page that differs (exit status 1). Stored, because readers of the repository look at them: the command line
and the report's schema. Not stored, so that a new check touches no other file: a page for each check.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from hypervigil.checks import load_checks
from hypervigil.cli.main import root
from hypervigil.report import checkpages, json
from tools import commandline

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"


def stored() -> Mapping[str, str]:
    """The generated pages that the repository holds, by their path under ``docs/reference``."""
    return {"report-schema-1.json": json.schema(), "command-line.md": commandline.page(root, "hypervigil")}


def unstored() -> Mapping[str, str]:
    """The generated pages that only the built documentation holds."""
    checks = load_checks()
    pages = {f"checks/{checkpages.name_of(check)}.md": checkpages.page(check) for check in checks}
    return {"checks/index.md": checkpages.index(checks), **pages}


def stale(folder: Path) -> list[str]:
    """The stored pages under `folder` that are missing or differ from what the code says now."""
    return [name for name, text in stored().items() if _read(folder / name) != text]


def write(folder: Path) -> None:
    """Write every page under `folder` and remove the pages of checks that are gone."""
    pages = {**stored(), **unstored()}
    for old in (folder / "checks").glob("*.md"):
        old.unlink()
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def main(arguments: list[str]) -> int:
    """Write, or check with ``--check``; the exit status says whether the stored pages are what the code says."""
    if arguments != ["--check"]:
        write(REFERENCE)
        return 0
    differing = stale(REFERENCE)
    for name in differing:
        print(f"docs/reference/{name} is not what the code says; run: make reference", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
