from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.lab import programs


def test_what_a_program_prints_is_given(tmp_path: Path) -> None:
    assert programs.run(["pwd"], "cannot", tmp_path).strip() == str(tmp_path)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["no-such-program-here"], "is missing"),
        (["sh", "-c", "echo one >&2; echo two >&2; exit 3"], "cannot: one; two"),
        (["false"], "cannot: status 1"),
    ],
)
def test_a_failing_command_is_told(command: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        programs.run(command, "cannot")


def test_a_program_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_TIMEOUT", 0.05)
    with pytest.raises(UsageError, match="cannot: no answer within"):
        programs.run(["sleep", "60"], "cannot")
