"""Is this kernel or hypervisor compromised: behind ``hypervigil integrity``, ``collect`` and ``verify``."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

import capstone
import msgspec

from hypervigil.app.confine import PROGRESS, Send, run_confined
from hypervigil.app.judging import Progress, Settings, judge_memory
from hypervigil.app.sources import Source
from hypervigil.checks import load_checks
from hypervigil.core.errors import EvidenceError, HypervigilError, UsageError
from hypervigil.core.report import Report
from hypervigil.extract.loading import load_extractors
from hypervigil.linux.reference import Reference, open_reference
from hypervigil.standards.layouts import kvm_layouts
from hypervigil.standards.syscalls import entry_points

PROFILES = ("default",)

M = TypeVar("M", bound=msgspec.Struct)


class Options(NamedTuple):
    """What the user asked for, besides the target.

    Attributes:
        profile: which checks are required for exit status 0.
        as_of: time of judgement, ISO 8601 in UTC.
        references: ``(name, bytes)`` of packages, kernels and types to compare with.
    """

    profile: str = "default"
    as_of: str = ""
    references: tuple[tuple[str, bytes], ...] = ()


class Outcome(NamedTuple):
    """What a run gave.

    Attributes:
        report: the report.
        faults: tracebacks of mistakes of ours; the report names each in one line.
        recording: what was read of a live source.
    """

    report: Report
    faults: tuple[str, ...] = ()
    recording: bytes | None = None


class _Message(msgspec.Struct):
    report: Report
    faults: tuple[str, ...]
    recording: bytes | None


class _Step(msgspec.Struct):
    what: str
    done: int
    total: int


def now() -> str:
    """The present moment as `Options.as_of` writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def as_of(text: str) -> str:
    """Check a moment that the user named.

    Raises:
        UsageError: it is no ISO 8601 moment.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as fault:
        raise UsageError(f"--as-of {text}: write it like 2026-01-31T12:00:00Z") from fault
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def integrity(source: Source, options: Options, progress: Progress, *, command: str = "integrity") -> Outcome:
    """Judge an opened source in a confined process.

    Raises:
        UsageError, EvidenceError: the evidence or the options cannot be used.
        HypervigilError: the process ended without a result.
    """
    load_everything()
    settings = Settings(command, source.name, options.profile, options.as_of or now())

    def work(send: Send) -> bytes:
        def report(what: str, done: int, total: int) -> None:
            send(PROGRESS, msgspec.msgpack.encode(_Step(what, done, total)))

        references = tuple(_reference(name, data) for name, data in options.references)
        judged = judge_memory(
            source.memory, source.describe, settings, references=references, progress=report, again=source.again
        )
        recording = None if source.recording is None else source.recording()
        return msgspec.msgpack.encode(_Message(judged.report, judged.faults, recording))

    message = _decoded(run_confined(work, _teller(progress), source.begin), _Message)
    return Outcome(message.report, message.faults, message.recording)


def _reference(name: str, data: bytes) -> Reference:
    """Recognise a file to compare with.

    Raises:
        UsageError: it is none, or damaged.
    """
    try:
        return open_reference(name, data)
    except EvidenceError as fault:
        why = str(fault)
        raise UsageError(why if name in why else f"{name}: {why}") from fault


def _teller(progress: Progress) -> Callable[[bytes], None]:
    def tell(body: bytes) -> None:
        step = _decoded(body, _Step)
        progress(step.what, step.done, step.total)

    return tell


def _decoded(body: bytes, kind: type[M]) -> M:
    """What the confined process said; it read hostile bytes and may say anything."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, HypervigilError) as fault:
        raise HypervigilError(f"the process that read the evidence gave no report: {fault}") from fault


def load_everything() -> None:
    """Load whatever judging needs: once confined, nothing can be opened any more."""
    load_checks()
    load_extractors()
    entry_points()
    kvm_layouts()
    next(capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm_lite(b"\x90", 0))
