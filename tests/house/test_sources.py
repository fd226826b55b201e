"""Rules of the house that no linter knows, over every source file of today and of the future."""

import ast
import re
import unicodedata
from pathlib import Path

import pytest

from tests.house.tree import PACKAGE, each_text, name_of, parsed, python_files

FILES = python_files()
MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 40

NOQA = re.compile(r"#\s*noqa\b(?P<rest>[^#]*)")
NOQA_DUE = re.compile(r": [A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)* +- +\S")
IGNORE = re.compile(r"#\s*type:\s*ignore(?P<rest>.*)")
IGNORE_DUE = re.compile(r"\[[a-z-]+(, ?[a-z-]+)*\]\s+# \S")


def comments_of(path: Path, pattern: re.Pattern[str]) -> list[tuple[int, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(number, found["rest"]) for number, line in enumerate(lines, 1) if (found := pattern.search(line))]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_has_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_function_has_at_most_40_lines(path: Path) -> None:
    functions = [n for n in ast.walk(parsed(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [(f.name, _lines(f)) for f in functions if _lines(f) > MOST_LINES_OF_A_FUNCTION] == []


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end without the docstring: long explanations are welcome."""
    whole = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is None:
        return whole
    return whole - ((first.end_lineno or first.lineno) - first.lineno + 1)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_top_catches_everything(path: Path) -> None:
    handlers = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.ExceptHandler)]
    broad = [handler.lineno for handler in handlers if _is_broad(handler)]
    assert broad == [] or path.is_relative_to(PACKAGE / "app")


def _is_broad(handler: ast.ExceptHandler) -> bool:
    """Whether it swallows what it does not know; one that tidies up and raises again swallows nothing."""
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    if handler.type is None:
        return True
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return not names.isdisjoint({"Exception", "BaseException"})


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_function_changes_its_module(path: Path) -> None:
    assert [node.lineno for node in ast.walk(parsed(path)) if isinstance(node, ast.Global)] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_an_exception_to_a_rule_names_it_and_its_reason(path: Path) -> None:
    noqa = [number for number, rest in comments_of(path, NOQA) if not NOQA_DUE.match(rest)]
    ignored = [number for number, rest in comments_of(path, IGNORE) if not IGNORE_DUE.match(rest)]
    assert (noqa, ignored) == ([], [])


def test_nothing_is_left_to_be_done() -> None:
    mark = re.compile(r"\b(?:TO(?:)DO|FIX(?:)ME|XX(?:)X)\b")
    assert [name_of(path) for path, text in each_text() if mark.search(text)] == []


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a package registry", r"pypi[.]org|python(?:)hosted|registry[.]npm|(?:deb|snapshot|security)[.]debian"),
        ("a folder of somebody's machine", r"(?<![\w.])/(work|root|home/\w+|tmp)/"),
    ],
)
def test_the_tree_names_neither_registries_nor_machines(what: str, pattern: str) -> None:
    found = [name_of(path) for path, text in each_text() if re.search(pattern, text)]
    assert found == [], what


def test_no_source_hides_characters() -> None:
    hidden = [
        name_of(path)
        for path, text in each_text()
        if any(unicodedata.category(c) in {"Cc", "Cf", "Co", "Cn"} and c not in "\n\t" for c in text)
    ]
    assert hidden == []
