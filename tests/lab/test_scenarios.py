import importlib
import inspect

import pytest

from hypervigil.core.errors import ProgramError, UsageError
from hypervigil.lab.scenarios import Scenario, each_scenario, named, parse_scenario

ALL = list(each_scenario())
TAMPERING = [scenario for scenario in ALL if scenario.kind == "tampering"]


def test_names_are_sorted_and_each_is_found() -> None:
    names = [scenario.name for scenario in ALL]
    assert names == sorted(names)
    assert [named(name) for name in names] == ALL


@pytest.mark.parametrize("scenario", [s for s in ALL if s.plant], ids=lambda s: s.name)
def test_its_planter_exists_and_takes_its_parameters(scenario: Scenario) -> None:
    parameters = dict(scenario.plant)
    module, _, name = str(parameters.pop("how")).partition(".")
    planter = getattr(importlib.import_module(f"hypervigil.lab.plant.{module}"), name)
    inspect.signature(planter).bind(None, **parameters)


@pytest.mark.parametrize("scenario", TAMPERING, ids=lambda s: s.name)
def test_a_tampering_plants_something_and_says_what_a_real_attack_does(scenario: Scenario) -> None:
    assert scenario.plant
    assert scenario.attack
    assert scenario.violates
    assert scenario.names


@pytest.mark.parametrize("scenario", [s for s in ALL if s.kind != "tampering"], ids=lambda s: s.name)
def test_what_is_no_tampering_must_not_be_found(scenario: Scenario) -> None:
    assert (scenario.violates, scenario.names) == ((), ())
    assert scenario.attack == ""


def test_there_is_enough_to_show() -> None:
    assert len(TAMPERING) >= 30
    assert len([scenario for scenario in ALL if scenario.kind == "legitimate"]) >= 8
    assert len({scenario.title for scenario in ALL}) == len(ALL)


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(UsageError, match="lab list"):
        named("no-such-scenario")


@pytest.mark.parametrize(
    "text", [b"title = ", b'title = "t"', b'title = "t"\nkind = "odd"', b'title = "t"\nkind = "clean"\nmore = 1']
)
def test_a_file_with_a_mistake_is_refused(text: bytes) -> None:
    with pytest.raises(ProgramError, match="scenario broken"):
        parse_scenario("broken", text)


def test_the_digest_is_of_the_file() -> None:
    one = parse_scenario("n", b'title = "t"\nkind = "clean"')
    two = parse_scenario("n", b'title = "t"\nkind = "clean" ')
    assert one.digest != two.digest
