from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hypervigil.app import matrix
from hypervigil.app.matrix import Cell, compare, page, run_matrix, unnamed
from hypervigil.core.errors import UsageError
from hypervigil.core.evidence import Span
from hypervigil.core.finding import Violation
from hypervigil.core.report import Report
from hypervigil.core.units import VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.images import Format
from hypervigil.lab.kernels import Kernel
from hypervigil.lab.produce import Production
from hypervigil.lab.scenarios import Kind, Named, Scenario
from hypervigil.lab.truth import Change, Planted, Truth
from tests.extract.judged import judged
from tests.extract.tamperings import page_of_nobody, system_call
from tests.linux.host_builder import host
from tests.linux.kernel_builder import RELEASE, TEXT, KernelImage


def scenario(kind: Kind = "tampering", *violates: str) -> Scenario:
    names = (Named("{object}"),) if kind == "tampering" else ()
    return Scenario(title="t", kind=kind, violates=violates, names=names, name="one")


def truth(*changes: tuple[str, int], after: str = "00" * 8) -> Truth:
    planted = Planted(tuple(Change(name, VirtAddr(at), "", after) for name, at in changes)) if changes else None
    return Truth("one", "t", "tampering", (), RELEASE, {}, "", "7.2", 4, planted, {}, {}, "")


def compared(alter: Callable[[KernelImage], int | None], chosen: Scenario, *objects: str) -> Cell:
    image = host()
    address = alter(image)
    assert address is not None
    report = judged(image)
    return compare(chosen, truth(*((name, address) for name in objects)), report, 0.1234)


def test_what_is_found_where_it_was_planted_is_caught() -> None:
    cell = compared(system_call, scenario("tampering", "KRN-003", "KRN-014"), "sys_call_table[1]")
    assert (cell.outcome, cell.why, cell.checks) == ("caught", "", ("KRN-003", "KRN-014"))
    assert (cell.release, cell.seconds) == (RELEASE, 0.12)


def test_a_violation_beyond_the_scenario_is_wrong() -> None:
    cell = compared(system_call, scenario("tampering", "KRN-003"), "sys_call_table[1]")
    assert (cell.outcome, cell.why) == ("wrong", "violated beyond what the scenario names: KRN-014")


def test_a_tampering_that_is_not_seen_is_wrong() -> None:
    cell = compared(lambda _: 0, scenario("tampering", "KRN-003"), "sys_call_table[1]")
    assert (cell.outcome, cell.why) == ("wrong", "the verdict is incomplete, nothing is violated")


def test_a_violation_elsewhere_is_wrong() -> None:
    image = host()
    system_call(image)
    place = truth(("something else", TEXT))
    cell = compare(scenario("tampering", "KRN-003", "KRN-014"), place, judged(image), 0)
    assert (cell.outcome, cell.why) == ("wrong", f"no violation names something else at {TEXT:#x}")
    cell = compare(scenario("tampering", "KRN-003", "KRN-014"), truth(), judged(image), 0)
    assert cell.why == "the scenario planted nothing"


SPAN = (Span(evidence="memory", start=0, end=1),)


def accused(name: str, address: int | None = 0x1000) -> list[Violation]:
    return [Violation(message="m", spans=SPAN, object=name, address=address)]


PLANTED = Planted(
    (Change("ops.read+0x4 call", VirtAddr(0x1000), "", "00" * 8), Change("stub", VirtAddr(0x2000), "", "00" * 8)),
    VirtAddr(0x2000),
    {"page": 0x3000, "pid": 7},
)


@pytest.mark.parametrize(
    ("names", "violations"),
    [
        (Named("{object}"), accused("ops.read+0x4 call")),
        (Named("{function}+*"), accused("ops.read+0x4 [kvm]", 0x1007)),
        (Named("process {pid} (*)", "page"), accused("process 7 (init)", 0x3000)),
        (Named("list[0].op*"), [*accused("other"), *accused("list[0].ops")]),
    ],
)
def test_what_is_named_by_its_name_and_its_address_is_named(names: Named, violations: list[Violation]) -> None:
    assert unnamed(names, PLANTED, violations) == ""


@pytest.mark.parametrize(
    ("names", "violations", "why"),
    [
        (Named("ops.read"), accused("ops.read", 0x1008), "ops.read at 0x1000"),
        (Named("ops.read"), accused("ops.read", None), "ops.read at 0x1000"),
        (Named("ops.read"), accused("ops.write"), "ops.read at 0x1000"),
        (Named("ops.read"), accused("opsxread"), "ops.read at 0x1000"),
        (Named("ops.read"), accused("ops.read", 0x2000), "ops.read at 0x1000"),
        (Named("process {pid}", "page"), accused("process 7", 0x3001), "process 7 at 0x3000"),
        (Named("{function}*"), [*accused("ops.read", 1), *accused("x")], "ops.read* at 0x1000"),
        (Named("x"), [], "x at 0x1000"),
    ],
)
def test_a_right_name_elsewhere_or_a_wrong_one_there_does_not_count(
    names: Named, violations: list[Violation], why: str
) -> None:
    assert unnamed(names, PLANTED, violations) == f"no violation names {why}"


def test_every_name_that_a_scenario_has_must_be_named() -> None:
    image = host()
    at = system_call(image)
    both = msgspec.structs.replace(
        scenario("tampering", "KRN-003", "KRN-014"), names=(Named("sys_call_table[1]"), Named("kallsyms"))
    )
    cell = compare(both, truth(("sys_call_table[1]", at)), judged(image), 0)
    assert (cell.outcome, cell.why) == ("wrong", f"no violation names kallsyms at {at:#x}")


@pytest.mark.parametrize("kind", ["clean", "legitimate"])
def test_a_sound_host_passes_and_an_accused_one_does_not(kind: Kind) -> None:
    cell = compared(lambda _: 0, scenario(kind))
    assert (cell.outcome, cell.checks) == ("passed", ())
    assert cell.why.startswith("KRN-009: ")
    wrong = compared(page_of_nobody, scenario(kind))
    assert wrong.outcome == "wrong"
    assert wrong.why.startswith("KRN-005 violated: ")


def test_a_sound_host_of_which_too_little_is_seen_does_not_pass() -> None:
    image = host()
    image.unlink(image.at["module kvm"] + image.types.offset("module", "list"))
    image.poke_image(image.at["kallsyms_token_table"], b"\xff" * 64)
    cell = compare(scenario("clean"), truth(), judged(image), 0)
    assert cell.outcome == "wrong"
    assert cell.why.startswith("only ")


def test_each_scenario_is_made_and_judged_and_images_that_did_their_work_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    made: list[Path] = []

    def produce(chosen: Scenario, kernel: Kernel, directory: Path, *_: object) -> Production:
        if chosen.name == "none":
            raise NotApplicable("no place for it")
        if chosen.name == "ill":
            raise UsageError("the host does not live on")
        image = host()
        at = system_call(image)
        made.append(directory / f"{chosen.name}.raw")
        made[-1].parent.mkdir(exist_ok=True)
        made[-1].write_bytes(image.data)
        assert kernel.release == RELEASE
        return Production({Format.RAW: made[-1]}, made[-1], truth(("call", at)))

    monkeypatch.setattr(matrix, "produce", produce)
    kernel = Kernel(RELEASE, {}, Path("vmlinuz"), Path("modules"))
    scenarios = (
        Scenario(title="t", kind="tampering", violates=("KRN-003", "KRN-014"), name="right"),
        Scenario(title="t", kind="tampering", violates=("KRN-001",), name="wrong"),
        Scenario(title="t", kind="tampering", name="none"),
        Scenario(title="t", kind="tampering", name="ill"),
    )
    cells = list(run_matrix([kernel], scenarios, tmp_path, tmp_path, said.append))
    assert [(c.scenario, c.outcome) for c in cells] == [
        ("right", "caught"),
        ("wrong", "wrong"),
        ("none", "not applicable"),
        ("ill", "wrong"),
    ]
    assert [c.why for c in cells[2:]] == ["no place for it", "it could not be made: the host does not live on"]
    assert [c.qemu for c in cells[:2]] == ["7.2"] * 2
    assert [path.exists() for path in made] == [False, True]
    assert said == [f"judging right on {RELEASE}", f"judging wrong on {RELEASE}"]


def test_the_page_shows_every_cell_by_kind_and_version() -> None:
    def cell(name: str, kind: str, release: str, outcome: str, **more: object) -> Cell:
        return Cell(scenario=name, kind=kind, release=release, outcome=outcome, **more)  # type: ignore[arg-type] # by its own fields

    text = page(
        [
            cell("hook", "tampering", "6.12.0-1", "caught", checks=("KVM-001",), seconds=1.26),
            cell("hook", "tampering", "5.10.0-9", "wrong", why="a | b"),
            cell("plain", "clean", "6.12.0-1", "passed", decided=0.97),
            cell("old", "legitimate", "5.10.0-9", "not applicable", why="no such table"),
        ],
        "Made by hand.",
    )
    assert "| scenario | 5.10.0-9 | 6.12.0-1 |" in text
    assert "| hook | **wrong**: a / b | [KVM-001](checks/kvm-001.md) (1.3\N{NO-BREAK SPACE}s) |" in text
    assert "| plain | not run | nothing violated, 97% decided (0.0\N{NO-BREAK SPACE}s) |" in text
    assert "| old | n/a | not run |" in text
    assert text.index("## Tampering") < text.index("## Legitimate") < text.index("## Clean")
    assert "Made by hand." in text
    assert text.endswith("## Why some do not apply\n\n- old: no such table\n")


def test_reports_are_of_the_right_kind() -> None:
    assert isinstance(judged(host()), Report)
