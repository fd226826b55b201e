"""Where an object's tables of patch sites stand in memory.

The kernel's own: between symbols that the linker makes (include/asm-generic/vmlinux.lds.h). Those that it needs only
while it boots - alternatives, returns, retpolines, lock prefixes - are freed with its init memory. A module keeps all
of its tables, each a section; ``struct module`` counts the entries of some, the others end where the next section
begins.
"""

import bisect
from collections.abc import Iterator, Mapping

from hypervigil.core.errors import EvidenceError
from hypervigil.core.facts import Gap
from hypervigil.core.units import VirtAddr
from hypervigil.facts.pointers import Section
from hypervigil.linux.members import has, number
from hypervigil.linux.modules import Module
from hypervigil.linux.text import (
    alternatives,
    bugs,
    endbr,
    exceptions,
    jump_labels,
    locks,
    paravirt,
    retpolines,
    returns,
    static_calls,
)
from hypervigil.linux.text.sites import Table
from hypervigil.memory.kernel import Kernel

_MAX_TABLE = 1 << 26
_KERNEL = (
    (jump_labels.SECTION, "__start___jump_table", "__stop___jump_table"),
    (static_calls.SECTION, "__start_static_call_sites", "__stop_static_call_sites"),
    (bugs.SECTION, "__start___bug_table", "__stop___bug_table"),
    (exceptions.SECTION, "__start___ex_table", "__stop___ex_table"),
)
_COUNTED = (
    (jump_labels.SECTION, "jump_entries", "num_jump_entries", 16),
    (static_calls.SECTION, "static_call_sites", "num_static_call_sites", 8),
    (exceptions.SECTION, "extable", "num_exentries", 12),
)
_SECTIONS = (
    locks.SECTION,
    returns.SECTION,
    retpolines.SECTION,
    alternatives.SECTION,
    paravirt.SECTION,
    endbr.SECTION,
)


def kernel_tables(kernel: Kernel, gaps: list[Gap]) -> dict[str, Table]:
    """The kernel's tables that stay in memory, by the name of the section; one that cannot be read is a gap."""
    found: dict[str, Table] = {}
    for section, low, high in _KERNEL:
        start, end = kernel.symbols.find(low), kernel.symbols.find(high)
        if start is not None and end is not None and start < end:
            _add(kernel, found, gaps, "the kernel", section, start, end - start)
    return found


def module_tables(kernel: Kernel, module: Module, places: Mapping[str, int], gaps: list[Gap]) -> dict[str, Table]:
    """A module's tables by the name of the section; one that cannot be read is a gap.

    Args:
        kernel: the kernel.
        module: the module.
        places: where its sections are.
        gaps: takes what could not be read.
    """
    found: dict[str, Table] = {}
    try:
        for section, address, size in (*_counted(kernel, module), *_sections(module, places)):
            _add(kernel, found, gaps, module.name, section, address, size)
    except EvidenceError as fault:
        gaps.append(Gap(f"tables of patch sites of module {module.name}", str(fault)))
    return found


def _add(
    kernel: Kernel, found: dict[str, Table], gaps: list[Gap], owner: str, section: str, address: int, size: int
) -> None:
    if not 0 < size <= _MAX_TABLE:
        gaps.append(Gap(f"{section} of {owner}", f"{size} bytes make no sense"))
        return
    try:
        found[section] = Table(address, kernel.space.read(VirtAddr(address), size))
    except EvidenceError as fault:
        gaps.append(Gap(f"{section} of {owner}", str(fault)))


def _counted(kernel: Kernel, module: Module) -> Iterator[tuple[str, int, int]]:
    thing = kernel.object("struct module", module.address)
    for section, pointer, count, width in _COUNTED:
        if has(thing, pointer):
            entries = number(thing, count)
            if entries:
                yield section, number(thing, pointer), entries * width
    entries = number(thing, "num_bugs")
    if entries:
        yield bugs.SECTION, number(thing, "bug_table"), entries * (kernel.type("struct bug_entry").size or 12)


def _sections(module: Module, places: Mapping[str, int]) -> Iterator[tuple[str, int, int]]:
    ends = _ends(module, places)
    for section in _SECTIONS:
        if section in ends:
            yield section, places[section], ends[section] - places[section]


def _ends(module: Module, places: Mapping[str, int]) -> dict[str, int]:
    """Where each section ends that is still there: at the next one in its area, else with the area."""
    starts = sorted(set(places.values()))
    found = {}
    for section, start in places.items():
        area = next((a for a in module.areas if a.start <= start < a.end and a.section is not Section.INIT), None)
        if area is not None:
            following = bisect.bisect_right(starts, start)
            found[section] = min(starts[following], area.end) if following < len(starts) else area.end
    return found
