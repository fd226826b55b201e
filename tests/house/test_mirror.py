"""Tests mirror sources: what a module does is found tested under the same name."""

from pathlib import Path

import pytest

from tests.house.tree import PACKAGE, ROOT, name_of, python_files

EXCEPTIONS = Path(__file__).with_name("not-mirrored.txt")
FREE = frozenset({"house", "laws", "lab"})
"""Folders of tests that are about the whole."""


def sources() -> list[Path]:
    return [path for path in python_files() if path.is_relative_to(PACKAGE) and path.name != "__init__.py"]


def mirror_of(source: Path) -> Path:
    inside = source.relative_to(PACKAGE)
    return ROOT / "tests" / inside.with_name(f"test_{inside.name}")


def exceptions() -> dict[str, str]:
    lines = [line for line in EXCEPTIONS.read_text().splitlines() if line and not line.startswith("#")]
    return {name: reason.strip() for name, _, reason in (line.partition(" ") for line in lines)}


def mirrored(source: Path) -> bool:
    is_check = source.with_suffix(".toml").exists()  # its examples are its tests
    return is_check or mirror_of(source).exists()


@pytest.mark.parametrize("source", sources(), ids=name_of)
def test_a_module_has_its_tests(source: Path) -> None:
    listed = source.relative_to(PACKAGE).as_posix() in exceptions()
    assert mirrored(source) != listed, (
        f"{name_of(mirror_of(source))}: write it, or take the module off {EXCEPTIONS.name}"
    )


def test_an_exception_has_a_reason_and_a_module() -> None:
    assert [name for name, reason in exceptions().items() if not reason] == []
    assert [name for name in exceptions() if not (PACKAGE / name).exists()] == []


def test_a_test_of_a_layer_tests_a_module_of_it() -> None:
    layers = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - FREE
    strays = [
        name_of(test)
        for test in (ROOT / "tests").rglob("test_*.py")
        for inside in [test.relative_to(ROOT / "tests")]
        if inside.parts[0] in layers and not (PACKAGE / inside.with_name(inside.name.removeprefix("test_"))).exists()
    ]
    assert strays == []
