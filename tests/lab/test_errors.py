from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.lab.errors import NotApplicable, told


def test_a_scenario_without_a_place_is_the_users_to_know() -> None:
    assert issubclass(NotApplicable, UsageError)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "^here: No space left on device$"),
        (OSError(13, "Permission denied", "there"), "^there: Permission denied$"),
        (OSError("odd"), "^here: odd$"),
    ],
)
def test_what_the_system_refuses_is_told(error: OSError, reason: str) -> None:
    with pytest.raises(UsageError, match=reason), told(Path("here")):
        raise error
