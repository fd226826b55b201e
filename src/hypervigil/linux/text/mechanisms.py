"""All mechanisms that patch text."""

from collections.abc import Callable, Iterator

from hypervigil.core.errors import EvidenceError
from hypervigil.core.facts import Gap
from hypervigil.linux.text import (
    alternatives,
    bugs,
    call_counting,
    constants,
    endbr,
    exceptions,
    ftrace,
    jump_labels,
    locks,
    paravirt,
    retpolines,
    returns,
    static_calls,
    tracing_code,
)
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import Sites

MECHANISMS: tuple[tuple[str, Callable[[Place], Sites]], ...] = (
    ("", ftrace.ftrace_sites),
    ("", tracing_code.tracing_code_sites),
    (jump_labels.SECTION, jump_labels.jump_label_sites),
    (static_calls.SECTION, static_calls.static_call_keys),
    (static_calls.SECTION, static_calls.static_call_sites),
    ("", static_calls.static_call_trampolines),
    (locks.SECTION, locks.lock_sites),
    (returns.SECTION, returns.return_sites),
    (retpolines.SECTION, retpolines.retpoline_sites),
    (alternatives.SECTION, alternatives.alternative_sites),
    (paravirt.SECTION, paravirt.paravirt_sites),
    (endbr.SECTION, endbr.endbr_sites),
    (bugs.SECTION, bugs.bug_sites),
    (exceptions.SECTION, exceptions.exception_sites),
    (constants.SECTION, constants.constant_sites),
    (call_counting.SECTION, call_counting.counted_calls),
    (call_counting.SECTION, call_counting.counting_code),
)
"""The section whose table names the places, empty where that is elsewhere, and what judges them. A star is any name.

Where several speak of one place it is enough that one finds it lawful.
"""


def each_sites(place: Place) -> Iterator[Sites | Gap]:
    """What every mechanism says of one object that has a table of it, or why it cannot."""
    for section, mechanism in MECHANISMS:
        if not _has(place, section):
            continue
        try:
            yield mechanism(place)
        except EvidenceError as fault:
            yield Gap(f"{section or mechanism.__name__} of {place.code.owner}", str(fault))


def _has(place: Place, section: str) -> bool:
    if section.endswith("*"):
        return any(name.startswith(section[:-1]) for name in place.tables)
    return not section or section in place.tables
