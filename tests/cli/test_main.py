import os
import subprocess
from pathlib import Path

import click
import pytest

from hypervigil import __version__
from hypervigil.cli import main as module
from hypervigil.cli.main import root
from hypervigil.core.errors import HypervigilError, ProgramError
from tests.cli.conftest import PROGRAM, Run

STATUSES = "Exit status: 0 holds, 1 violated, 2 usage or broken input, 3 not fully seen."


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_help_lists_every_command_and_the_statuses(run: Run, option: str) -> None:
    ran = run(option)
    assert (ran.status, ran.err) == (0, "")
    assert STATUSES in ran.out
    listed = [line.split()[0] for line in ran.out.partition("Commands:\n")[2].splitlines()]
    assert listed == ["scan", "integrity", "collect", "verify", "report", "checks", "lab", "completion"]


@pytest.mark.parametrize("command", root.list_commands(click.Context(root)))
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_explains_itself(run: Run, command: str, option: str) -> None:
    ran = run(command, option)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: hypervigil {command} ")
    assert "-h, --help" in ran.out


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_that_of_the_package(run: Run, option: str) -> None:
    assert run(option) == (0, f"hypervigil {__version__}\n", "")


@pytest.mark.parametrize("command", ["integrity", "scan", "collect", "verify", "report", "completion"])
def test_a_missing_argument_is_a_mistake_of_usage(run: Run, command: str) -> None:
    ran = run(command)
    assert (ran.status, ran.out) == (2, "")
    assert f"Usage: hypervigil {command}" in ran.err
    assert "Error: Missing" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["--bogus"], "No such option '--bogus'"),
        (["checks", "--bogus"], "No such option '--bogus'"),
        (["checks", "KVM-001", "KVM-002"], "unexpected extra argument (KVM-002)"),
        (["integrity", "x", "--profile", "bogus"], "'bogus' is not 'default'"),
    ],
)
def test_a_mistake_of_usage_is_named(run: Run, arguments: list[str], said: str) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.err.replace("No such option: --bogus", "No such option '--bogus'")


def test_a_name_that_is_not_listed_is_no_command() -> None:
    assert root.get_command(click.Context(root), "bogus") is None


def test_something_else_under_a_command_s_name_is_a_mistake_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMMANDS", {"odd": "main:main"})
    with pytest.raises(ProgramError, match="odd is no command"):
        root.get_command(click.Context(root), "odd")


def failing(fault: BaseException) -> click.Command:
    def work() -> None:
        raise fault

    return click.Command("checks", callback=work)


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        (HypervigilError("a reason"), 2, "hypervigil: a reason\n"),
        (click.Abort(), 130, "hypervigil: interrupted\n"),
        (ZeroDivisionError("oh"), 2, "hypervigil: internal error: ZeroDivisionError: oh; run with HYPERVIGIL_DEBUG=1"),
        (AssertionError(), 2, "hypervigil: internal error: AssertionError: ; run with"),
        (RecursionError("deep"), 2, "hypervigil: internal error: RecursionError: deep; run with"),
        (MemoryError(), 2, "hypervigil: internal error: MemoryError: ; run with"),
    ],
)
def test_a_failure_never_ends_with_the_status_of_a_verdict(
    run: Run, monkeypatch: pytest.MonkeyPatch, fault: BaseException, status: int, said: str
) -> None:
    monkeypatch.setattr(type(root), "get_command", lambda *_: failing(fault))
    ran = run("checks")
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith(said)
    assert "Traceback" not in ran.err


def test_an_interruption_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(root), "get_command", lambda *_: failing(KeyboardInterrupt()))
    ran = run("checks")
    assert (ran.status, ran.err.strip()) == (130, "hypervigil: interrupted")


@pytest.mark.parametrize("status", [0, 1, 2, 3])
def test_a_command_s_status_is_the_program_s(run: Run, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(type(root), "get_command", lambda *_: click.Command("checks", callback=lambda: status))
    assert run("checks").status == status


@pytest.mark.parametrize("line", ["checks", "--help", "lab list", "report clean.json"])
def test_a_full_disk_is_told_and_no_verdict(shell: Run, saved: Path, line: str) -> None:
    ran = shell(f"cd {saved}; hypervigil {line} >/dev/full")
    assert ran == (2, "", "hypervigil: standard output: no space left on device\n")


@pytest.mark.parametrize("line", ["checks", "--help", "report undecided.json"])
def test_a_reader_that_went_away_gets_no_complaint_and_no_verdict(saved: Path, line: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run([PROGRAM, *line.split()], cwd=saved, stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (2, b"")


def test_closed_streams_change_no_verdict(run: Run, shell: Run, saved: Path, sound: Path) -> None:
    options = "--as-of 2026-01-31 --json"
    whole = run("integrity", sound, *options.split())
    assert whole.status == 3
    closed = shell(f"hypervigil integrity {sound} {options} -o closed.json <&- >&- 2>&-; echo $?; cat closed.json")
    assert closed.out == f"3\n{whole.out}"
    assert shell(f"hypervigil report {saved}/violated.json >&-") == (1, "", "")
