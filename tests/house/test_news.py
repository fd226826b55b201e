import re
from pathlib import Path

import pytest

from tests.house.tree import ROOT

FRAGMENTS = sorted(path for path in (ROOT / "newsfragments").iterdir() if path.name != "README.md")
NAME = re.compile(r"(\+[a-z0-9][a-z0-9_-]*|[0-9]+)\.(check|feature|fix|change|removal)\.md")
LONGEST = 300


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda path: path.name)
def test_a_news_fragment_is_a_short_statement_under_a_known_type(fragment: Path) -> None:
    assert NAME.fullmatch(fragment.name)
    text = fragment.read_text(encoding="utf-8").strip()
    assert text.endswith(".")
    assert len(text) <= LONGEST
    assert "\n\n" not in text


def test_the_types_are_those_that_the_build_knows() -> None:
    configured = set(
        re.findall(r'\[\[tool\.towncrier\.type\]\]\ndirectory = "(\w+)"', (ROOT / "pyproject.toml").read_text())
    )
    assert configured == {"check", "feature", "fix", "change", "removal"}
