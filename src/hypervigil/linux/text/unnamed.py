"""Executable code of a module that none of its symbols names; some modules keep it behind their last function.

- ``.altinstr_replacement``: what alternatives may put in place. ``.altinstructions`` names each and its length, also
  those for init text that is gone (arch/x86/include/asm/alternative.h).
- ``.altinstr_aux``: how a feature of the processor is tested before alternatives are chosen: ``testb``, ``jnz``,
  ``jmp`` (_static_cpu_has, arch/x86/include/asm/cpufeature.h).
- ``.fixup``: where the kernel goes on after a fault that it expected, which ``__ex_table`` names, up to the jump back.
  Kernels before 5.17 have it ("x86: Remove .fixup section").

Where such a section begins is on the module's list of sections, where it ends is not: each counts as far only as its
pieces follow one another without a gap. So whatever stands behind it is nobody's.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from hypervigil.core.units import VirtAddr
from hypervigil.facts.pointers import Section
from hypervigil.linux.modules import Module
from hypervigil.linux.text import alternatives, exceptions
from hypervigil.linux.text.branches import Dead
from hypervigil.linux.text.instructions import each_step
from hypervigil.linux.text.sites import Table
from hypervigil.memory.kernel import Kernel

REPLACEMENTS = ".altinstr_replacement"
TESTS = ".altinstr_aux"
FIXUPS = ".fixup"

_TESTS = re.compile(rb"(?:\xf6\x05.{5}\x0f\x85.{4}\xe9.{4})*", re.DOTALL)
_LONGEST_FIXUP = 64
_MAX_INIT = 1 << 18
_MOST = 1 << 16
"""Bytes of such a section that are looked at; those of Debian's modules have up to 2,165."""

Extent = tuple[int, int]


def unnamed_code(
    kernel: Kernel, module: Module, places: Mapping[str, int], tables: Mapping[str, Table]
) -> dict[str, Extent]:
    """The half-open range of each such section that stands in the module's text, by the section's name.

    Args:
        kernel: the kernel.
        module: the module.
        places: where its sections are.
        tables: its tables of sites by the name of their section.

    Raises:
        MissingMemory: it is not in the image.
        MissingDescription: the type of the table's entries is not known.
    """
    found: dict[str, Extent] = {}
    for section in (REPLACEMENTS, TESTS, FIXUPS):
        start = places.get(section, 0)
        area = next((a for a in module.areas if a.section is Section.TEXT and a.start <= start < a.end), None)
        if area is None:
            continue
        end = min(area.end, start + _MOST)
        found[section] = (start, min(end, _reach(start, _pieces(kernel, section, (start, end), tables))))
    return found


def dead_code(places: Mapping[str, int], unnamed: Mapping[str, Extent]) -> tuple[Dead, ...]:
    """Parts of a module's text that only its alternatives used, and where its init text was."""
    init = places.get(".init.text")
    if init is None:
        return ()
    return tuple(
        Dead(*unnamed[section], init, init + _MAX_INIT) for section in (TESTS, REPLACEMENTS) if section in unnamed
    )


def _pieces(kernel: Kernel, section: str, room: Extent, tables: Mapping[str, Table]) -> Iterable[Extent]:
    if section == REPLACEMENTS:
        return alternatives.replacements(kernel, tables)
    data = kernel.space.read(VirtAddr(room[0]), room[1] - room[0])
    if section == TESTS:
        found = _TESTS.match(data)
        return ((room[0], room[0] + (found.end() if found else 0)),)
    return _fixups(data, room[0], exceptions.targets(tables))


def _fixups(data: bytes, start: int, targets: Iterable[int]) -> Iterator[Extent]:
    for target in sorted({target for target in targets if start <= target < start + len(data)}):
        piece = data[target - start : target - start + _LONGEST_FIXUP]
        jump = next((step for step in each_step(piece, target) if step.name == "jmp"), None)
        if jump is not None:
            yield target, jump.address + jump.size


def _reach(start: int, pieces: Iterable[Extent]) -> int:
    """How far pieces reach that follow one another from `start` on."""
    reached = start
    for low, high in sorted(pieces):
        if start <= low <= reached:
            reached = max(reached, high)
    return reached
