"""From an opened source to a report: the one path that every integrity use-case takes."""

import itertools
import traceback
from collections.abc import Callable
from typing import NamedTuple

import msgspec

import hypervigil
from hypervigil.checks import load_checks
from hypervigil.core.check import Check, judge, unjudged
from hypervigil.core.digest import CHUNK
from hypervigil.core.errors import EvidenceError, UnsupportedEvidence
from hypervigil.core.evidence import Evidence, Span
from hypervigil.core.facts import Fact, FactOutcome, Unknown
from hypervigil.core.finding import Finding
from hypervigil.core.looks import MAX_LOOKS, is_settled, settle
from hypervigil.core.report import (
    Candidate,
    Exhibit,
    Property,
    Region,
    Report,
    RunRecord,
    coverage_of,
    overall,
    page_of,
)
from hypervigil.extract.exhibits import exhibits
from hypervigil.extract.loading import Subject, all_unknown, extract, load_extractors
from hypervigil.facts.kernel import ExecutableMemory
from hypervigil.linux.census import Census
from hypervigil.linux.reference import Reference, adopt
from hypervigil.linux.system import System
from hypervigil.memory.kernel import open_kernel
from hypervigil.memory.reader import Reader

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

_LIMITS = (
    (
        "What the image says of itself is writable by whoever controls the kernel; contradictions are violations, "
        "a consistent forgery is not seen without a vendor's package."
    ),
    "What lies below the observed system cannot be seen in its memory: a hypervisor under it, SMM, firmware.",
    "Memory of encrypted guests (SEV, TDX) cannot be read.",
    "An image that was taken while the system ran may be smeared: two structures of different moments.",
)


class Settings(NamedTuple):
    """What the user asked for, besides the target.

    Attributes:
        command: the use-case.
        target: the target as named, without its folder.
        profile: which checks are required.
        as_of: time of judgement, ISO 8601.
    """

    command: str
    target: str
    profile: str
    as_of: str


class Judged(NamedTuple):
    """A report, and tracebacks of mistakes of ours that it names in one line each."""

    report: Report
    faults: tuple[str, ...]


def judge_memory(
    memory: Reader,
    evidence: Callable[[tuple[int, ...]], Evidence],
    settings: Settings,
    *,
    references: tuple[Reference, ...] = (),
    progress: Progress = lambda _what, _done, _all: None,
    again: Callable[[], None] | None = None,
) -> Judged:
    """Judge the physical memory of a Linux host.

    Args:
        memory: the memory.
        evidence: describes it, given the chunks that findings cite; called last, when its digest may be ready.
        settings: what was asked.
        references: what to compare with.
        progress: told of every step.
        again: makes reads give memory as it is now, for memory that changes; None for memory that does not.

    Raises:
        UnsupportedEvidence: the memory is of another architecture or system, named.
    """
    faults: list[str] = []
    system, facts, findings = _settled(memory, references, settings.profile, progress, again, faults)
    shown = _exhibits(system, findings, faults)
    cited = _cited_chunks(memory.evidence, findings)
    verdict, status = overall(findings)
    report = Report(
        run=RunRecord(
            tool_version=hypervigil.__version__,
            command=settings.command,
            target=settings.target,
            profile=settings.profile,
            as_of=settings.as_of,
        ),
        verdict=verdict,
        exit_status=status,
        coverage=coverage_of(findings),
        evidence=(evidence(cited), *_cited_as(references, memory.evidence)),
        subject=_subject(system, faults),
        candidates=_candidates(system, facts),
        findings=findings,
        exhibits=shown,
        memory_map=_memory_map(facts),
        checks=tuple(page_of(check) for check in load_checks()),
        limits=_LIMITS,
    )
    return Judged(report, tuple(dict.fromkeys(faults)))


def _settled(
    memory: Reader,
    references: tuple[Reference, ...],
    profile: str,
    progress: Progress,
    again: Callable[[], None] | None,
    faults: list[str],
) -> tuple[System | None, dict[type[Fact], FactOutcome], tuple[Finding, ...]]:
    """The system and the facts of the last look, and the findings of all looks together."""
    looks: list[tuple[Finding, ...]] = []
    while True:
        system, facts = _opened(memory, references, progress, faults)
        looks.append(_findings(facts, profile, faults))
        if again is None or len(looks) == MAX_LOOKS or is_settled(looks):
            return system, facts, settle(looks)
        progress("looking again at what changed or is violated", len(looks), MAX_LOOKS)
        again()


def _opened(
    memory: Reader, references: tuple[Reference, ...], progress: Progress, faults: list[str]
) -> tuple[System | None, dict[type[Fact], FactOutcome]]:
    """The opened system, if it could be opened, and every fact."""
    progress("locating the kernel", 0, 1)
    try:
        kernel = open_kernel(memory)
        adopt(kernel, references)
        system = System(kernel)
    except UnsupportedEvidence:
        raise  # refused by name: there is nothing to report on
    except EvidenceError as fault:
        return None, dict(all_unknown(str(fault)))
    except Exception as fault:  # noqa: BLE001 - a mistake of ours must not lose the report
        faults.append(traceback.format_exc())
        return None, dict(all_unknown(f"internal error while opening the kernel: {_named(fault)}"))
    return system, _facts(Subject(system, Census(system), references), progress, faults)


def _facts(subject: Subject, progress: Progress, faults: list[str]) -> dict[type[Fact], FactOutcome]:
    extractors = load_extractors()
    facts: dict[type[Fact], FactOutcome] = {}
    for done, (kind, extractor) in enumerate(extractors.items()):
        progress(f"reading {_spaced(kind.__name__)}", done, len(extractors))
        try:
            facts[kind] = extract(extractor, subject)
        except Exception as fault:  # noqa: BLE001 - a mistake of ours costs one fact, not the report
            faults.append(traceback.format_exc())
            facts[kind] = Unknown(f"internal error while reading {_spaced(kind.__name__)}: {_named(fault)}")
    progress("judging", len(extractors), len(extractors))
    return facts


def _findings(facts: dict[type[Fact], FactOutcome], profile: str, faults: list[str]) -> tuple[Finding, ...]:
    findings = []
    for check in load_checks():
        try:
            findings.append(judge(check, facts, profile=profile))
        except Exception as fault:  # noqa: BLE001 - a mistake of ours costs one check, not the report
            faults.append(traceback.format_exc())
            findings.append(_failed(check, fault, profile))
    return tuple(findings)


def _failed(check: Check, fault: Exception, profile: str) -> Finding:
    return unjudged(check, f"internal error in the check: {_named(fault)}", profile=profile)


def _exhibits(system: System | None, findings: tuple[Finding, ...], faults: list[str]) -> tuple[Exhibit, ...]:
    if system is None:
        return ()
    try:
        return tuple(exhibits(system, findings))
    except Exception:  # noqa: BLE001 - a mistake of ours costs the pictures, not the verdict
        faults.append(traceback.format_exc())
        return ()


def _named(fault: Exception) -> str:
    return f"{type(fault).__name__}: {fault}"[:200]


def _spaced(name: str) -> str:
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def _cited_chunks(evidence: str, findings: tuple[Finding, ...]) -> tuple[int, ...]:
    spans: list[Span] = [span for f in findings for v in f.violations for span in v.spans]
    found = {i for s in spans if s.evidence == evidence for i in range(s.start // CHUNK, (s.end - 1) // CHUNK + 1)}
    return tuple(sorted(found))


def _cited_as(references: tuple[Reference, ...], memory: str) -> tuple[Evidence, ...]:
    """The references as evidence, each under an id of its own: its name, or its name and a number."""
    taken = {memory}
    found: list[Evidence] = []
    for reference in references:
        name = reference.evidence.id
        names = itertools.chain((name,), (f"{name} ({n})" for n in itertools.count(2)))
        free = next(one for one in names if one not in taken)
        taken.add(free)
        found.append(msgspec.structs.replace(reference.evidence, id=free))
    return tuple(found)


def _subject(system: System | None, faults: list[str]) -> tuple[Property, ...]:
    """What is known of the system, sorted; a mistake of ours costs the properties, not the report."""
    if system is None:
        return ()
    try:
        return tuple(sorted(_properties(system)))
    except Exception as fault:  # noqa: BLE001 - it is our mistake, and is told
        faults.append(traceback.format_exc())
        return (Property("system", f"internal error while describing it: {_named(fault)}"),)


def _properties(system: System) -> list[Property]:
    kernel = system.kernel
    found = [Property("page table levels", str(kernel.location.levels))]
    info = kernel.location.vmcoreinfo
    if info is not None:
        found.append(Property("kernel release", info[0].osrelease))
        found.append(Property("build id", info[0].build_id or "not given"))
        if info[0].kernel_offset is not None:
            found.append(Property("KASLR offset", f"{info[0].kernel_offset:#x}"))
    try:
        banner = kernel.space.text(kernel.symbols.address("linux_banner"), 256).strip()
        found.append(Property("banner", banner))
        names = ", ".join(module.name for module in system.modules.items)
        found.append(Property("modules", names or "none"))
    except EvidenceError as fault:
        found.append(Property("banner", f"unknown: {fault}"))
    return found


def _candidates(system: System | None, facts: dict[type[Fact], FactOutcome]) -> tuple[Candidate, ...]:
    if system is not None:
        return tuple(system.kernel.candidates)
    why = next((o.why for o in facts.values() if isinstance(o, Unknown)), "")
    return (Candidate(what="kernel", where="the whole image", kept=False, reason=why),)


def _memory_map(facts: dict[type[Fact], FactOutcome]) -> tuple[Region, ...]:
    memory = facts.get(ExecutableMemory)
    if not isinstance(memory, ExecutableMemory):
        return ()
    return tuple(
        Region(start=r.start, end=r.end, owner=r.owner, kind=r.kind, writable=r.writable) for r in memory.regions
    )
