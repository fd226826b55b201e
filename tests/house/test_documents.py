"""The documents at the top say what is so: targets exist, links lead somewhere, versions agree."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from tools.commandline import undescribed

from hypervigil.cli.main import root
from tests.house.tree import ROOT, each_text, name_of

MARKDOWN = [(path, text) for path, text in each_text() if path.suffix == ".md"]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))


def test_every_target_that_a_document_names_exists() -> None:
    named = {
        (name_of(path), target) for path, text in MARKDOWN for target in re.findall(r"\bmake ([a-z][a-z-]*)`", text)
    }
    assert {target for _, target in named} >= {"test", "check"}
    assert [(path, target) for path, target in sorted(named) if target not in TARGETS] == []


def test_make_alone_lists_every_target_meant_for_people() -> None:
    listed = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
    assert listed >= {"demo", "test", "check", "bench", "lab-matrix", "docs", "help"}
    assert ".DEFAULT_GOAL := help" in MAKEFILE
    phony = set(re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE))
    assert phony >= listed


@pytest.mark.parametrize(
    ("path", "text"), [(p, t) for p, t in MARKDOWN if p.parent == ROOT], ids=lambda value: getattr(value, "name", "")
)
def test_relative_links_lead_somewhere(path: Path, text: str) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)", text) + re.findall(r'src="(?!https?:)([^"]+)"', text)
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_versions_agree() -> None:
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version("hypervigil") == ours
    assert f"\nversion: {ours}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_licence_is_the_one_that_the_package_names() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"


def test_ci_runs_what_a_contributor_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()
    assert re.search(r"make (--keep-going )?check", script.read_text())


def test_every_command_and_option_is_described() -> None:
    assert undescribed(root, "hypervigil") == []
