import json
import os
import pty
import subprocess
import threading
from pathlib import Path

import pytest

from hypervigil.cli.output import output_of
from hypervigil.core.errors import UsageError
from hypervigil.report import html, terminal
from hypervigil.report.json import read_json
from tests.cli.conftest import PROGRAM, Run
from tests.report import reports

ESCAPE = "\x1b"


def test_two_forms_at_once_are_refused(run: Run, saved: Path) -> None:
    assert run("report", saved / "clean.json", "--json", "--sarif") == (
        2,
        "",
        "hypervigil: --json and --sarif: choose one\n",
    )
    with pytest.raises(UsageError):
        output_of(as_json=True, as_sarif=True, html_file="", file="", quiet=True)


def test_a_pipe_gets_plain_text(run: Run, saved: Path) -> None:
    ran = run("report", saved / "violated.json")
    assert ran == (1, terminal.render(reports.violated()), "")
    assert ESCAPE not in ran.out


def test_json_and_sarif_take_the_place_of_text(run: Run, saved: Path) -> None:
    assert run("report", saved / "violated.json", "--json").out == (saved / "violated.json").read_text()
    sarif = json.loads(run("report", saved / "violated.json", "--sarif").out)
    assert sarif["version"] == "2.1.0"


def test_quiet_is_one_line(run: Run, saved: Path) -> None:
    ran = run("report", saved / "violated.json", "-q")
    assert (ran.status, ran.out) == (1, terminal.quiet(reports.violated()))
    assert ran.out.count("\n") == 1


def test_quiet_shortens_text_only(run: Run, saved: Path) -> None:
    assert run("report", saved / "clean.json", "-q", "--json").out == (saved / "clean.json").read_text()


@pytest.mark.parametrize("option", ["-o", "--output"])
def test_a_file_gets_what_standard_output_would_and_that_stays_empty(
    run: Run, saved: Path, tmp_path: Path, option: str
) -> None:
    for form in ([], ["--json"], ["--sarif"], ["-q"]):
        shown = run("report", saved / "undecided.json", *form)
        written = run("report", saved / "undecided.json", *form, option, tmp_path / "out")
        assert written == (shown.status, "", "")
        assert (tmp_path / "out").read_text(encoding="utf-8") == shown.out


def test_a_page_is_written_beside_the_rest(run: Run, saved: Path, tmp_path: Path) -> None:
    ran = run("report", saved / "violated.json", "--html", tmp_path / "page.html", "--json")
    assert (ran.status, ran.out) == (1, (saved / "violated.json").read_text())
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == html.render(reports.violated())


@pytest.mark.parametrize("option", ["-o", "--html"])
@pytest.mark.parametrize(
    ("place", "why"), [("/dev/full", "no space left on device"), ("none/x", "no such file or directory")]
)
def test_what_cannot_be_written_is_told_by_name(run: Run, saved: Path, option: str, place: str, why: str) -> None:
    ran = run("report", saved / "clean.json", option, place)
    assert (ran.status, ran.err) == (2, f"hypervigil: {place}: {why}\n")


def test_a_folder_is_no_place_for_a_file(run: Run, saved: Path, tmp_path: Path) -> None:
    ran = run("report", saved / "clean.json", "-o", tmp_path)
    assert ran.status == 2
    assert f"File '{tmp_path}' is a directory." in ran.err


def test_hostile_text_reaches_no_terminal(run: Run, saved: Path) -> None:
    for form in ([], ["-q"], ["--json"], ["--sarif"]):
        shown = run("report", saved / "hostile.json", *form).out
        assert not {c for c in shown if ord(c) < 0x20 and c != "\n"} | ({"\x7f", "\x9b", "\u202e"} & set(shown))


@pytest.mark.parametrize(("form", "encoding"), [([], "ascii"), (["--json"], "utf-8"), (["-q"], "ascii")])
def test_text_is_written_in_what_the_stream_takes_and_json_as_it_is(
    saved: Path, form: list[str], encoding: str
) -> None:
    done = subprocess.run(
        [PROGRAM, "report", str(saved / "hostile.json"), *form],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, b"")
    shown = done.stdout.decode(encoding)
    if form == ["--json"]:
        assert read_json(shown.encode()) == read_json((saved / "hostile.json").read_bytes())


def on_a_terminal(arguments: list[str], environment: dict[str, str]) -> str:
    """What the program writes to a terminal."""
    ours, theirs = pty.openpty()
    read: list[bytes] = []

    def listen() -> None:
        try:
            while piece := os.read(ours, 4096):
                read.append(piece)
        except OSError:  # how a terminal says that nobody is left at its other end
            pass

    listener = threading.Thread(target=listen)
    listener.start()
    known = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "COLUMNS", "TERM"}}
    subprocess.run([PROGRAM, *arguments], env=known | environment, stdout=theirs, check=False)
    os.close(theirs)
    listener.join()
    os.close(ours)
    return b"".join(read).decode()


def test_colour_is_for_terminals_that_want_it(saved: Path) -> None:
    arguments = ["report", str(saved / "violated.json")]
    wide = {"TERM": "xterm", "COLUMNS": "100"}
    coloured = on_a_terminal(arguments, wide)
    plain = on_a_terminal(arguments, wide | {"NO_COLOR": "1"})
    assert ESCAPE in coloured
    assert plain.replace("\r\n", "\n") == terminal.render(reports.violated())
    assert ESCAPE not in on_a_terminal(arguments, {"TERM": "dumb", "COLUMNS": "100"})
