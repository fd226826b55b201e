"""The tree under test: which files are ours, and what is generated or belongs to tools."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "hypervigil"

_NOT_OURS = frozenset({"build", "site", "dist", "out", "__pycache__", "uv.lock"})
_HIDDEN_BUT_OURS = frozenset({".ci", ".gitignore", ".pre-commit-config.yaml"})
_GENERATED = ROOT / "docs" / "reference" / "checks"


def each_file() -> Iterator[Path]:
    """Every file of the repository that people write, in a stable order."""
    yield from _each_below(ROOT)


def each_text() -> Iterator[tuple[Path, str]]:
    """Every file that is text, with its text."""
    for path in each_file():
        data = path.read_bytes()
        if b"\0" not in data:
            yield path, data.decode("utf-8")


def python_files() -> list[Path]:
    return [path for path in each_file() if path.suffix == ".py"]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _each_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") and path.name not in _HIDDEN_BUT_OURS
        if hidden or path.name in _NOT_OURS or path == _GENERATED or path.name.endswith(".egg-info"):
            continue
        if path.is_dir():
            yield from _each_below(path)
        else:
            yield path
