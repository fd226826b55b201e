"""A sound host of some pages, altered in one place: each alteration is found where it is, and nothing else is."""

import io

import msgspec
import pytest

from hypervigil.app import judging
from hypervigil.app.judging import judge_memory
from hypervigil.checks import load_checks
from hypervigil.core.check import Check
from hypervigil.core.digest import CHUNK
from hypervigil.core.evidence import Evidence, Span
from hypervigil.core.facts import Fact, FactOutcome
from hypervigil.core.finding import Verdict, Violation
from hypervigil.core.report import Report
from hypervigil.core.units import PAGE_SIZE
from hypervigil.extract.loading import Extractor, load_extractors
from hypervigil.linux.reference import open_reference
from hypervigil.memory.kernel import Kernel, open_kernel
from hypervigil.memory.open import read_image
from hypervigil.memory.reader import Reader
from hypervigil.memory.recording import RecordingReader, ReplayReader
from hypervigil.memory.symbols import Losses
from tests.app.live import LiveImage
from tests.extract.judged import SETTINGS, evidence, finding, judged, violated
from tests.extract.tamperings import TAMPERINGS, exit_handler, system_call
from tests.linux.c_types import words
from tests.linux.host_builder import host
from tests.linux.kernel_builder import DATA, RODATA, KernelImage, lose_symbols


def test_the_sound_host_is_free_of_violations() -> None:
    for levels in (4, 5):
        report = judged(host(levels))
        assert violated(report) == {}
        open_ones = {f.check for f in report.findings if f.verdict in {Verdict.UNKNOWN, Verdict.INCOMPLETE}}
        assert open_ones == {"KRN-009"}  # it has no patch sites


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_an_alteration_is_found_where_it_is(tampering: str) -> None:
    alter, checks = TAMPERINGS[tampering]
    image = host()
    address = alter(image)
    report = judged(image)
    found = violated(report)
    assert (tuple(found), report.verdict, report.exit_status) == (checks, "violated", 1)
    violations = [v for check in found.values() for v in check]
    if address is not None:
        assert address in {v.address for v in violations}, violations
    assert all(v.address is not None for v in violations)
    data = bytes(image.data)
    for violation in violations:
        assert violation.spans
        assert all(0 <= span.start < span.end <= len(data) for span in violation.spans)


@pytest.mark.parametrize("tampering", ["system call", "open file", "exit handler", "irqfd"])
def test_a_cited_pointer_reopens_at_its_bytes(tampering: str) -> None:
    alter, checks = TAMPERINGS[tampering]
    image = host()
    address = alter(image)
    assert address is not None
    report = judged(image)
    (violation,) = [v for v in finding(report, checks[0]).violations if v.address == address]
    cited = b"".join(image.data[s.start : s.end] for s in violation.spans)
    assert image.peek(address, 8) in cited
    shown = next(e for e in report.exhibits if e.check == checks[0] and e.address == address)
    assert bytes.fromhex(shown.found) == image.peek(address, len(shown.found) // 2)


def _without_a_page_of_symbols(table: str, at: int) -> KernelImage:
    """The sound host with many more symbols, of which one page is lost."""
    image = host()
    for index in range(4000):
        image.name(f"filler_{index}", RODATA + 0x3000 + index % 0x1000, "r")
    image.put_tables()
    page = -(-image.at[table] // PAGE_SIZE) * PAGE_SIZE + at * PAGE_SIZE
    image.poke_image(page, bytes(PAGE_SIZE))
    return image


LOST_PAGES = [("kallsyms_names", 1), ("kallsyms_offsets", 1), ("kallsyms_seqs_of_names", 0)]


@pytest.mark.parametrize(("table", "at"), LOST_PAGES)
def test_a_lost_page_of_symbols_costs_what_depends_on_it_only(table: str, at: int) -> None:
    report = judged(_without_a_page_of_symbols(table, at))
    assert violated(report) == {}
    open_ones = {f.check for f in report.findings if f.verdict in {Verdict.UNKNOWN, Verdict.INCOMPLETE}}
    assert {"KRN-002"} <= open_ones <= {"KRN-002", "KRN-009", "KRN-014"}
    assert "are lost: pages of the table are all zero" in str(finding(report, "KRN-002").gaps)


def test_lost_bounds_of_the_kernels_data_leave_open_what_leads_there_only(monkeypatch: pytest.MonkeyPatch) -> None:
    image = host()
    address = exit_handler(image)
    whole = open_kernel

    def without_bounds(memory: Reader) -> Kernel:
        kernel = whole(memory)
        lose_symbols(kernel, Losses(("_edata", "__init_begin"), (), tuple(sorted(kernel.symbols.names))))
        return kernel

    monkeypatch.setattr(judging, "open_kernel", without_bounds)
    report = judged(image)
    assert {check: [v.address for v in found] for check, found in violated(report).items()} == {"KVM-006": [address]}
    assert any(e.after for e in report.exhibits)
    verdicts = {f.check: f.verdict for f in report.findings}
    assert (verdicts["KRN-003"], verdicts["KRN-007"], verdicts["KRN-012"]) == (Verdict.HOLDS,) * 3
    assert verdicts["KVM-010"] is Verdict.HOLDS


@pytest.mark.parametrize(("table", "at"), LOST_PAGES)
def test_an_alteration_is_found_though_symbols_are_lost(table: str, at: int) -> None:
    image = _without_a_page_of_symbols(table, at)
    address = system_call(image)
    report = judged(image)
    assert address in {v.address for v in violated(report)["KRN-003"]}


def test_the_same_evidence_gives_the_same_report() -> None:
    image = host()
    system_call(image)
    assert judged(image) == judged(image)


def test_what_cannot_be_opened_is_unknown_and_says_why() -> None:
    report = judge_memory(read_image(memoryview(b"nothing" * 4096)), evidence, SETTINGS).report
    assert (report.verdict, report.exit_status, report.subject) == ("unknown", 3, ())
    assert {f.verdict for f in report.findings} == {Verdict.UNKNOWN}
    assert report.candidates[0].reason.startswith("no kernel was found in the image")
    assert all("no kernel was found" in f.why for f in report.findings)


def test_the_report_describes_its_subject() -> None:
    properties = {p.name: p.value for p in judged(host()).subject}
    assert properties["kernel release"] == "6.12.0-0-test"
    assert properties["modules"] == "dummy, kvm, kvm_amd"
    assert properties["page table levels"] == "4"
    assert properties["build id"] == bytes(range(20)).hex()


def test_progress_names_each_step_and_ends_at_its_end() -> None:
    steps: list[tuple[str, int, int]] = []
    judge_memory(host().raw(), evidence, SETTINGS, progress=lambda *step: steps.append(step))
    assert steps[0][0] == "locating the kernel"
    assert steps[-1][0] == "judging"
    assert steps[-1][1] == steps[-1][2] == len(steps) - 2


def moving(*stages: KernelImage) -> tuple[Report, Report, bytes]:
    """What is said of a machine that stands otherwise in each look, and of its recording; and the recording."""
    left = [bytearray(stage.data) for stage in stages]
    live = LiveImage(left.pop(0))
    recorder = RecordingReader(live)

    def again() -> None:
        live.data = left.pop(0) if left else live.data
        recorder.look_again()

    told = judge_memory(recorder, evidence, SETTINGS, again=again).report
    file = io.BytesIO()
    recorder.write(file)
    replay = ReplayReader(memoryview(file.getvalue()))
    return told, judge_memory(replay, evidence, SETTINGS, again=replay.look_again).report, file.getvalue()


def test_what_one_look_at_a_running_machine_could_not_decide_another_may() -> None:
    cut = host()
    cut.poke(cut.symbols["modules"][0], words(1))
    told, again, _ = moving(cut, host())
    assert finding(judged(cut), "KRN-012").verdict is not Verdict.HOLDS
    assert finding(told, "KRN-012").verdict is Verdict.HOLDS
    assert again == told


def test_what_two_looks_at_a_running_machine_show_is_violated_and_cited_from_the_last() -> None:
    hooked = host()
    address = system_call(hooked)
    told, again, recording = moving(host(), hooked)
    (violation,) = finding(told, "KRN-003").violations
    assert violation.address == address
    cited = b"".join(recording[span.start : span.end] for span in violation.spans)
    assert hooked.peek(address, 8) in cited
    assert again == told


def test_what_one_look_at_a_running_machine_shows_is_no_longer_innocent() -> None:
    hooked = host()
    system_call(hooked)
    told, again, _ = moving(hooked, host())
    assert finding(told, "KRN-003").verdict is Verdict.UNKNOWN
    assert "only one showed a violation" in finding(told, "KRN-003").why
    assert told.exit_status == 3
    assert again == told


def test_only_chunks_that_violations_cite_are_asked_for() -> None:
    asked: list[tuple[int, ...]] = []

    def describe(chunks: tuple[int, ...]) -> Evidence:
        asked.append(chunks)
        return evidence(chunks)

    image = host()
    judge_memory(image.raw(), describe, SETTINGS)
    system_call(image)
    judge_memory(image.raw(), describe, SETTINGS)
    assert asked == [(), (0,)]


def failing(*_: object) -> FactOutcome:
    raise ZeroDivisionError("a mistake")


def test_a_mistake_in_an_extractor_costs_its_fact_only(monkeypatch: pytest.MonkeyPatch) -> None:
    extractors: dict[type[Fact], Extractor] = dict(load_extractors())
    broken = next(kind for kind in extractors if kind.__name__ == "SystemCalls")
    monkeypatch.setattr(judging, "load_extractors", lambda: extractors | {broken: failing})
    found = judge_memory(host().raw(), evidence, SETTINGS)
    assert len(found.faults) == 1
    assert "ZeroDivisionError: a mistake" in found.faults[0]
    unknown = finding(found.report, "KRN-003")
    assert unknown.verdict is Verdict.UNKNOWN
    assert unknown.why == "internal error while reading system calls: ZeroDivisionError: a mistake"
    assert finding(found.report, "KRN-004").verdict is Verdict.HOLDS
    assert found.report.exit_status == 3


def test_a_mistake_in_a_check_costs_that_check_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(subject: Check) -> Check:
        return Check(id=subject.id, function=failing, needs=subject.needs, about=subject.about)  # type: ignore[arg-type] # it fails

    checks = tuple(broken(c) if c.id == "KRN-003" else c for c in load_checks())
    monkeypatch.setattr(judging, "load_checks", lambda: checks)
    found = judge_memory(host().raw(), evidence, SETTINGS)
    assert len(found.faults) == 1
    assert finding(found.report, "KRN-003").why == "internal error in the check: ZeroDivisionError: a mistake"


def test_a_mistake_while_opening_gives_a_report_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "open_kernel", failing)
    found = judge_memory(host().raw(), evidence, SETTINGS)
    assert len(found.faults) == 1
    assert {f.verdict for f in found.report.findings} == {Verdict.UNKNOWN}
    assert "internal error while opening the kernel" in found.report.findings[0].why


def test_a_mistake_in_describing_the_system_costs_its_properties_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "_properties", failing)
    found = judge_memory(host().raw(), evidence, SETTINGS)
    assert len(found.faults) == 1
    assert [str(p.value) for p in found.report.subject] == [
        "internal error while describing it: ZeroDivisionError: a mistake"
    ]
    assert finding(found.report, "KRN-003").verdict is Verdict.HOLDS


def test_every_evidence_has_an_id_of_its_own() -> None:
    types = host().types.btf
    references = tuple(open_reference(name, types) for name in ("types", "memory", "types", "types (2)", "memory"))
    report = judge_memory(host().raw(), evidence, SETTINGS, references=references).report
    assert [one.id for one in report.evidence] == [
        "memory",
        "types",
        "memory (2)",
        "types (2)",
        "types (2) (2)",
        "memory (3)",
    ]
    assert [one.name for one in report.evidence[1:]] == ["types", "memory", "types", "types (2)", "memory"]


def test_types_that_an_image_lacks_are_taken_from_outside() -> None:
    image = host()
    image.poke_image(image.symbols["__start_BTF"][0], bytes(8))
    given = (open_reference("types", image.types.btf),)
    alone = judge_memory(image.raw(), evidence, SETTINGS).report
    helped = judge_memory(image.raw(), evidence, SETTINGS, references=given).report
    assert finding(alone, "KRN-012").verdict is Verdict.UNKNOWN
    assert "BTF of types" in finding(helped, "KRN-012").rests_on


@pytest.mark.parametrize(
    ("start", "end", "chunks"),
    [(0, CHUNK, (0,)), (CHUNK - 1, CHUNK + 1, (0, 1)), (CHUNK, 3 * CHUNK + 1, (1, 2, 3)), (0, 1, (0,))],
)
def test_every_chunk_that_a_span_touches_is_cited(start: int, end: int, chunks: tuple[int, ...]) -> None:
    spans = (Span("memory", start, end), Span("other", 9 * CHUNK, 9 * CHUNK + 1))
    found = finding(judge_memory(host().raw(), evidence, SETTINGS).report, "KRN-003")
    violation = Violation(message="m", object="o", address=1, spans=spans)
    assert (
        judging._cited_chunks(
            "memory", (msgspec.structs.replace(found, verdict=Verdict.VIOLATED, violations=(violation,)),)
        )
        == chunks
    )


def test_a_mistake_in_the_pictures_costs_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "exhibits", failing)
    image = host()
    system_call(image)
    found = judge_memory(image.raw(), evidence, SETTINGS)
    assert (len(found.faults), found.report.exhibits, found.report.exit_status) == (1, (), 1)


def test_the_subject_of_a_kernel_without_symbols_is_what_is_known() -> None:
    image = host()
    image.poke_image(image.at["kallsyms_token_table"], b"\xff" * 64)
    report = judged(image)
    properties = {p.name: p.value for p in report.subject}
    assert properties["banner"].startswith("unknown: ")
    assert report.exit_status == 3


def test_the_page_tables_of_the_kernel_are_mapped_in_the_report() -> None:
    regions = judged(host()).memory_map
    owners = {region.owner for region in regions}
    assert {"kernel text", "module kvm", "module kvm_amd", "module dummy"} <= owners
    assert all(region.start < region.end for region in regions)
    assert not any(region.start <= DATA < region.end for region in regions)
