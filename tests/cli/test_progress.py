import io
import sys

import pytest

from hypervigil.cli import progress
from hypervigil.cli.progress import Steps


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds, as a test sets them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_without_a_terminal_a_line_comes_every_two_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Steps(quiet=False) as steps:
        for step, seconds in enumerate((0.5, 1.4, 0.1, 1.9, 0.1, 5.0), start=1):
            clock.now += seconds
            steps(f"step {step}", step, 6)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"hypervigil: step {step} ({step} of 6)" for step in (3, 5, 6)]


def test_quiet_says_nothing_anywhere(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Steps(quiet=True) as steps:
        clock.now += 60
        steps("step", 1, 2)
    assert capsys.readouterr() == ("", "")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with Steps(quiet=True) as steps:
        steps("step", 1, 2)
    assert stream.getvalue() == ""


def test_on_a_terminal_a_bar_names_the_step_and_goes_when_all_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with Steps(quiet=False) as steps:
        steps("locating the kernel", 1, 3)
        steps("judging", 3, 3)
    written = stream.getvalue()
    assert "judging" in written
    assert "hypervigil: " not in written
    assert written.endswith("\x1b[2K")  # its line is erased


def test_the_bar_goes_when_something_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")

    def fail() -> None:
        with Steps(quiet=False) as steps:
            steps("judging", 1, 2)
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert stream.getvalue().endswith("\x1b[2K")
