from pathlib import Path

import click
from tools.manual import main, page

from hypervigil import __version__
from hypervigil.cli.main import root


@click.group(help="Watch *all* of it.\n\nWithout a TARGET: this_ machine.")
def watch() -> None:
    pass


@watch.command(help="Judge a target.\n\n\b\n0  holds\n.1  violated\n\nThe end.")
@click.argument("target")
@click.option("--level", type=click.Choice(["loose", "strict"]), help="How `strict` | it is: a\\b.")
def judge(target: str, level: str) -> None:
    del target, level


@watch.command(hidden=True)
def buried() -> None:
    pass


def test_every_command_is_described_with_its_options() -> None:
    text = page(watch, "watch")
    assert '.TH "watch" "1"' in text
    assert __version__ in text
    assert r"\fBwatch judge\fP [OPTIONS] TARGET" in text
    assert ".SH WATCH JUDGE\n.sp\nJudge a target." in text
    assert r"\fB\-\-level [loose|strict]\fP" in text
    assert "buried" not in text
    assert "-help" not in text


def test_marks_of_the_form_in_between_are_text() -> None:
    text = page(watch, "watch")
    assert "Watch *all* of it." in text
    assert "this_ machine" in text
    assert r"How \(gastrict\(ga | it is: a\eb." in text


def test_lines_that_belong_together_are_kept_and_none_becomes_a_command_of_the_formatter() -> None:
    text = page(watch, "watch")
    assert "0  holds\n\\&.1  violated\n" in text


def test_the_page_of_the_program_is_written(tmp_path: Path) -> None:
    assert main([str(tmp_path / "hypervigil.1")]) == 0
    written = (tmp_path / "hypervigil.1").read_text()
    assert written == page(root, "hypervigil")
    for command in ("integrity", "verify", "lab demo"):
        assert f".SH HYPERVIGIL {command.upper()}\n" in written
