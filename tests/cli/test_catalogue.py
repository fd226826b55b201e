import json
import re

import pytest

from hypervigil.checks import load_checks
from hypervigil.cli import catalogue
from hypervigil.core.check import Check
from hypervigil.report.checkpages import page
from tests.cli.conftest import Run


def test_every_check_is_listed_on_a_line_in_order(run: Run) -> None:
    ran = run("checks")
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(check.id for check in load_checks())
    for line, check in zip(lines, load_checks(), strict=True):
        assert re.fullmatch(rf"{check.id}  {check.about.severity} +\S.*", line)
        assert line.endswith(f"  {check.about.title}")


@pytest.mark.parametrize("name", ["KVM-001", "kvm-001"])
def test_one_check_is_explained(run: Run, name: str) -> None:
    check = next(check for check in load_checks() if check.id == "KVM-001")
    assert run("checks", name) == (0, page(check), "")


def test_an_earlier_id_still_finds_its_check(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    known = load_checks()[0]
    about = {n: getattr(known.about, n) for n in known.about.__struct_fields__} | {"aliases": ("OLD-007",)}
    renamed = Check(id=known.id, function=known.function, needs=known.needs, about=type(known.about)(**about))
    monkeypatch.setattr(catalogue, "load_checks", lambda: (renamed,))
    assert run("checks", "old-007").out == page(renamed)


def test_a_check_that_is_not_there_is_told(run: Run) -> None:
    said = "hypervigil: KRN-999: no such check; `hypervigil checks` lists them\n"
    assert run("checks", "KRN-999") == (2, "", said)


def test_json_holds_what_a_program_needs(run: Run) -> None:
    listed = json.loads(run("checks", "--json").out)
    assert [entry["id"] for entry in listed] == [check.id for check in load_checks()]
    for entry, check in zip(listed, load_checks(), strict=True):
        assert entry["name"] == check.function.__name__
        assert entry["reads"] == [need.__name__ for need in check.needs]
        assert entry["severity"] == str(check.about.severity)
        assert entry["cannot_see"] == check.about.cannot_see
        assert "example" not in entry


def test_json_of_one_check_is_that_check_alone(run: Run) -> None:
    listed = json.loads(run("checks", "--json", "kvm-001").out)
    assert [entry["id"] for entry in listed] == ["KVM-001"]
    assert run("checks", "--json", "KRN-999").status == 2
