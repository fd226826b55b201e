"""The documentation builds without a warning and loads nothing from elsewhere: readers may have no network."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT
from tools import reference

LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=["'](?:https?:)?//"""
    r"""|<link\b[^>]*\bhref=["'](?:https?:)?//"""
    r"""|@import\s+(?:url\()?["']?(?:https?:)?//|url\(\s*["']?(?:https?:)?//"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("documentation")
    shutil.copytree(ROOT / "docs", top / "docs", ignore=shutil.ignore_patterns("checks"))
    shutil.copytree(ROOT / "tests" / "report" / "golden", top / "tests" / "report" / "golden")
    reference.write(top / "docs" / "reference")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-b", "html", "docs", "site"],
        cwd=top,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stderr) == (0, "")
    return top / "site"


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    files = [path for path in site.rglob("*") if path.suffix in {".html", ".css", ".js", ".svg"}]
    assert len(files) > len(reference.unstored())
    assert [path.name for path in files if LOADED.search(path.read_text(encoding="utf-8"))] == []


def test_every_page_can_be_reached_from_the_start(site: Path) -> None:
    seen: set[Path] = set()
    waiting = [(site / "index.html").resolve()]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".html":
            continue
        seen.add(page)
        links = re.findall(r'href="([^"#]+)', page.read_text(encoding="utf-8"))
        waiting += [(page.parent / link).resolve() for link in links if not re.match(r"[a-z]+:", link)]
    pages = {path.resolve() for path in site.rglob("*.html")} - {(site / "genindex.html").resolve()}
    assert pages <= seen
