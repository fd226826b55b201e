import pytest

from hypervigil.app.guard import guarded
from hypervigil.core.errors import ProgramError


def divide() -> float:
    return 1 / 0


def test_what_work_returns_is_returned() -> None:
    assert guarded(lambda: 7, ()) == 7


def test_an_expected_error_is_left_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        guarded(divide, (OSError, ZeroDivisionError))


def test_a_mistake_becomes_one_line_that_says_how_to_learn_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYPERVIGIL_DEBUG", raising=False)
    with pytest.raises(ProgramError) as told:
        guarded(divide, (OSError,))
    assert str(told.value) == (
        "internal error: ZeroDivisionError: division by zero; run with HYPERVIGIL_DEBUG=1 and report what it says"
    )


def test_with_the_debug_variable_its_place_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERVIGIL_DEBUG", "1")
    with pytest.raises(ProgramError, match="in divide"):
        guarded(divide, (OSError,))


def test_an_interruption_is_no_mistake() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded(interrupted, ())
