import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypervigil.checks import load_checks, loading
from hypervigil.core.errors import ProgramError

HEAD = """
from collections.abc import Iterator
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.kernel import Tasks
"""
ABOUT = 'title = "t"\nseverity = "high"\nrationale = "r"\nremedy = "m"\nfalse_positives = "f"\ncannot_see = "c"\n'


def function(name: str, check: str) -> str:
    return f'\n@check("{check}")\ndef {name}(tasks: Tasks) -> Iterator[Violation]:\n    yield from ()\n'


class Package:
    """A package of checks in a folder, loaded in place of those that exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "__init__.py").touch()

    def write(self, stem: str, code: str, about: str | None = ABOUT) -> None:
        (self.folder / f"{stem}.py").write_text(HEAD + code)
        if about is not None:
            (self.folder / f"{stem}.toml").write_text(about)

    @staticmethod
    def load() -> list[str]:
        importlib.invalidate_caches()
        return [check.id for check in loading.load_checks.__wrapped__()]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    folder = tmp_path / "checks_of_a_test"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    genuine = importlib.import_module

    def imported(name: str) -> object:
        return genuine("checks_of_a_test" if name.startswith("hypervigil.checks.") else name)

    monkeypatch.setattr(loading, "_DOMAINS", ("kernel",))
    monkeypatch.setattr(importlib, "import_module", imported)
    yield Package(folder)
    for name in [name for name in sys.modules if name.startswith("checks_of_a_test")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "code", ["import nothing_of_that_name", "raise SyntaxError", "undefined", "None.attribute", "{}[0]", "int('x')"]
)
def test_a_check_that_does_not_import_ends_the_run_by_its_name(package: Package, code: str) -> None:
    package.write("sound", function("sound", "KRN-001"))
    package.write("broken", code)
    with pytest.raises(ProgramError, match=r"checks_of_a_test\.broken does not import: "):
        package.load()


def test_the_checks_are_those_of_both_domains_by_id() -> None:
    ids = [check.id for check in load_checks()]
    assert ids == sorted(set(ids))
    assert {check_id[:3] for check_id in ids} == {"KRN", "KVM"}
    folders = {
        info.name
        for domain in ("kernel", "hypervisor")
        for info in pkgutil.iter_modules(importlib.import_module(f"hypervigil.checks.{domain}").__path__)
    }
    assert {check.name for check in load_checks()} == folders


def test_checks_are_found_by_scanning(package: Package) -> None:
    package.write("b", function("b", "X-001"))
    package.write("a", function("a", "X-002"))
    assert package.load() == ["X-001", "X-002"]


def test_a_check_without_its_data_file_is_refused(package: Package) -> None:
    package.write("a", function("a", "X-001"), about=None)
    with pytest.raises(ProgramError, match=r"X-001: its data file a\.toml cannot be read"):
        package.load()


@pytest.mark.parametrize("about", ["title = 1", ABOUT + 'other = "x"\n', "not toml", ABOUT.replace("high", "awful")])
def test_a_data_file_of_another_shape_is_refused(package: Package, about: str) -> None:
    package.write("a", function("a", "X-001"), about)
    with pytest.raises(ProgramError, match=r"X-001: its data file a\.toml cannot be read"):
        package.load()


def test_file_and_function_share_a_name(package: Package) -> None:
    package.write("a", function("b", "X-001"))
    with pytest.raises(ProgramError, match=r"X-001: b stands in a\.py; file and function share a name"):
        package.load()


@pytest.mark.parametrize(("code", "count"), [("", 0), (function("a", "X-001") + function("b", "X-002"), 2)])
def test_a_module_holds_one_check(package: Package, code: str, count: int) -> None:
    package.write("a", code)
    with pytest.raises(ProgramError, match=rf"a holds {count} checks, it must hold one"):
        package.load()


def test_a_check_that_is_only_imported_does_not_count(package: Package) -> None:
    package.write("a", function("a", "X-001"))
    package.write("b", "from checks_of_a_test.a import a" + function("b", "X-002"))
    assert package.load() == ["X-001", "X-002"]


@pytest.mark.parametrize(
    ("first", "second", "aliases"), [("X-001", "X-001", ""), ("X-001", "X-002", 'aliases = ["X-001"]\n')]
)
def test_two_checks_of_one_name_are_refused(package: Package, first: str, second: str, aliases: str) -> None:
    package.write("a", function("a", first))
    package.write("b", function("b", second), ABOUT + aliases)
    with pytest.raises(ProgramError, match="two checks are called X-001: a and b"):
        package.load()
