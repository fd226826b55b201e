from pathlib import Path

from hypervigil.checks import load_checks
from tools import reference


def test_stored_pages_are_what_the_code_says() -> None:
    assert reference.stale(reference.REFERENCE) == []


def test_a_missing_or_edited_page_is_stale(tmp_path: Path) -> None:
    reference.write(tmp_path)
    assert reference.stale(tmp_path) == []
    (tmp_path / "report-schema-1.json").write_text("{}")
    assert reference.stale(tmp_path) == ["report-schema-1.json"]
    (tmp_path / "report-schema-1.json").unlink()
    assert reference.stale(tmp_path) == ["report-schema-1.json"]


def test_every_check_has_a_page_and_no_page_outlives_its_check(tmp_path: Path) -> None:
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "old-001.md").write_text("gone")
    reference.write(tmp_path)
    pages = {path.stem for path in (tmp_path / "checks").glob("*.md")}
    assert pages == {"index", *(check.id.lower() for check in load_checks())}


def test_writing_twice_writes_the_same(tmp_path: Path) -> None:
    reference.write(tmp_path)
    first = {path: path.read_text() for path in tmp_path.rglob("*.*")}
    reference.write(tmp_path)
    assert {path: path.read_text() for path in tmp_path.rglob("*.*")} == first
