from hypervigil.core.errors import UsageError
from hypervigil.lab.errors import NotApplicable


def test_a_scenario_without_a_place_is_the_users_to_know() -> None:
    assert issubclass(NotApplicable, UsageError)
