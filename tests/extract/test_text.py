"""Text of the kernel and its modules, judged by itself."""

import pytest

from hypervigil.checks import load_checks
from hypervigil.core.check import judge
from hypervigil.core.errors import EvidenceError
from hypervigil.core.finding import Verdict
from hypervigil.extract.loading import Subject, extract
from hypervigil.extract.text import text_sites
from hypervigil.facts.kernel import TextSites
from hypervigil.facts.pointers import Section
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.images import Format
from hypervigil.linux.census import Census
from hypervigil.linux.modules import Area, Module
from hypervigil.linux.system import System
from hypervigil.linux.text.tracers import read_tracers
from hypervigil.memory.kernel import open_kernel
from hypervigil.memory.open import open_image
from tests.conftest import Produce
from tests.linux.text.world import DATA, MODULE, TEXT, WILD, World, rel, tracer

AT = TEXT + 0x40
NOP = b"\x0f\x1f\x44\x00\x00"


def world() -> World:
    made = World()
    made.whole()
    made.put(TEXT, b"\x90" * 0x1000)
    made.put(WILD, b"\x90\xc3")
    made.symbol("vfs_read", TEXT)
    made.symbol("vfs_write", AT)
    made.symbol("__x86_return_thunk", TEXT + 0x200)
    made.module("kvm", (MODULE, 0x40, "kvm_init"))
    return made


def facts(made: World) -> TextSites:
    system = made.system()
    outcome = text_sites(Subject(system, Census(system)))
    assert isinstance(outcome, TextSites)
    return outcome


def told(made: World) -> list[tuple[str, str, str]]:
    return [(one.kind, one.symbol, one.owner) for image in facts(made).images for one in image.deviations]


def test_every_text_is_compared() -> None:
    images = facts(world()).images
    assert [(image.name, image.compared) for image in images] == [("kernel", 0x4000), ("kvm", 0x2000)]


def test_a_sound_text_has_no_deviation() -> None:
    assert told(world()) == []


def test_a_branch_to_foreign_code_is_told_with_its_target() -> None:
    made = world()
    made.put(AT + 0x10, rel(b"\xe9", AT + 0x10, WILD))
    (one,) = facts(made).images[0].deviations
    assert (one.kind, one.address, one.symbol) == ("branch", AT + 0x10, "vfs_write+0x10")
    assert hex(WILD) in one.legal


def test_a_function_that_begins_with_a_way_out_is_told_once() -> None:
    made = world()
    made.put(AT, rel(b"\xe9", AT, TEXT + 0x210))
    assert told(made) == [("function entry", "vfs_write", "")]
    made.put(AT, rel(b"\xe9", AT, WILD))
    assert told(made) == [("branch", "vfs_write", "")]


def test_missing_pages_are_gaps() -> None:
    made = world()
    del made.pages[TEXT + 0x1000]
    found = facts(made)
    assert f"1 page of kernel text at {TEXT + 0x1000:#x}" in {gap.what for gap in found.gaps}
    assert found.images[0].compared == 0x3000


@pytest.mark.parametrize(
    ("state", "init", "listed", "compared"),
    [("coming", True, False, 1), ("coming", True, True, 2), ("coming", False, False, 2), ("unformed", False, False, 2)],
)
def test_a_module_that_is_being_loaded_is_a_gap_but_its_state_alone_proves_nothing(
    state: str,
    init: bool,  # noqa: FBT001 - a case
    listed: bool,  # noqa: FBT001 - a case
    compared: int,
) -> None:
    made = world()
    module, symbols = made.modules[0]
    if listed:
        made.types["module"] = [*made.types["module"], ("sect_attrs", 0x200, 8)]
        made.number(module.address + 0x200, DATA)
    areas = (*module.areas, Area(DATA, DATA + 8, Section.INIT)) if init else module.areas
    made.modules[0] = (Module(name="kvm", address=module.address, state=state, areas=areas, size=8), symbols)
    found = facts(made)
    assert len(found.images) == compared
    assert any("being loaded" in gap.why for gap in found.gaps) == (compared == 1)


def test_operations_that_divert_functions_for_a_module_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made = world()
    tracers = read_tracers(made.kernel())._replace(registered=(tracer(MODULE, flags=1),))
    monkeypatch.setattr("hypervigil.linux.text.registry.read_tracers", lambda _kernel: tracers)
    assert ("ftrace operations", "vmap_area_list+0x100", "") in told(made)


def test_without_the_bounds_of_text_nothing_is_known() -> None:
    made = world()
    made.names = [row for row in made.names if row[1] != "_etext"]
    with pytest.raises(EvidenceError):
        facts(made)


TAMPERED = {
    "ftrace-site": "ftrace",
    "ftrace-ops-unlinked": "ftrace",
    "kvm-text-detour": "branch",
    "kernel-text-detour": "branch",
    "syscall-dispatcher": "branch",
    "syscall-entry": "branch",
    "static-call-site": "static call",
    "static-call-trampoline": "static call trampoline",
    "static-call-key": "static call key",
    "return-site": "return site",
    "alternative-site": "alternative",
    "jump-label": "jump label",
}
LEGITIMATE = (
    *("plain", "kprobe", "kretprobe", "function-tracer", "function-graph", "tracepoints", "bpf-programs"),
    *("module-churn", "no-mitigations", "one-cpu", "four-cpus", "five-level-paging", "dormant"),
)
KERNELS = ("6.1", *(pytest.param(kernel, marks=pytest.mark.matrix) for kernel in ("5.10", "6.12", "newest")))


def verdict(lab_image: Produce, kernel: str, scenario: str) -> tuple[Verdict, set[str], set[str]]:
    """The verdict, kinds of violating deviations, and owners of the others."""
    try:
        made = lab_image(kernel, scenario)
    except NotApplicable as reason:
        pytest.skip(str(reason))
    system = System(open_kernel(open_image(str(made.images[Format.RAW]))))
    outcome = extract(text_sites, Subject(system, Census(system)))
    assert isinstance(outcome, TextSites)
    check = next(check for check in load_checks() if check.needs == (TextSites,))
    said = [one for image in outcome.images for one in image.deviations]
    kinds = {one.kind for one in said if not one.owner}
    return judge(check, {TextSites: outcome}).verdict, kinds, {one.owner for one in said if one.owner}


@pytest.mark.lab
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scenario", TAMPERED)
def test_tampering_is_found(lab_image: Produce, kernel: str, scenario: str) -> None:
    found, kinds, _ = verdict(lab_image, kernel, scenario)
    assert found is Verdict.VIOLATED
    assert TAMPERED[scenario] in kinds


@pytest.mark.lab
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scenario", LEGITIMATE)
def test_lawful_use_is_no_violation(lab_image: Produce, kernel: str, scenario: str) -> None:
    found, kinds, owners = verdict(lab_image, kernel, scenario)
    assert (found, kinds) == (Verdict.HOLDS, set())
    assert owners or scenario not in {"kprobe", "kretprobe", "function-tracer", "function-graph"}
