"""Text of the kernel and of every module against its own tables of patch sites, with nothing from outside."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeGuard

import msgspec
import numpy as np

from hypervigil.core.errors import EvidenceError, MissingMemory
from hypervigil.core.facts import Gap
from hypervigil.core.units import PAGE_SIZE
from hypervigil.extract.loading import Subject, extracts
from hypervigil.facts.code import CodeImage, Deviation
from hypervigil.facts.kernel import TextSites
from hypervigil.facts.pointers import Section
from hypervigil.linux.members import number
from hypervigil.linux.modules import Module, module_sections
from hypervigil.linux.system import KERNEL, System
from hypervigil.linux.text import static_calls
from hypervigil.linux.text.branches import Dead, Stray, stray_branches
from hypervigil.linux.text.code import Code, read_code
from hypervigil.linux.text.deviations import bounded, deviation, each_probe, judge_sites
from hypervigil.linux.text.entries import Entry, odd_entries
from hypervigil.linux.text.ftrace import each_unsound
from hypervigil.linux.text.landing import is_ordered
from hypervigil.linux.text.mechanisms import each_sites
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.registry import Registry, read_registry
from hypervigil.linux.text.sites import Sites, Table
from hypervigil.linux.text.tables import kernel_tables, module_tables
from hypervigil.linux.text.unnamed import REPLACEMENTS, Extent, dead_code, unnamed_code
from hypervigil.memory.symbols import Symbols

_REFERENCE = "its own tables of patch sites"


@extracts(TextSites)
def text_sites(subject: Subject) -> TextSites:
    """Judge every patch site, every branch out of the text and every function's first instruction."""
    system = subject.system
    gaps: list[Gap] = list(system.modules.gaps)
    codes = [read_code(system.kernel, *text) for text in each_text(system, gaps)]
    described = {code.owner: _describe(system, code.owner, gaps) for code in codes}
    copied = {owner: one.unnamed[REPLACEMENTS] for owner, one in described.items() if REPLACEMENTS in one.unnamed}
    registry = read_registry(system, codes, copied)
    gaps += registry.gaps
    images = []
    for code in codes:
        try:
            images.append(_image(system, registry, code, described[code.owner], gaps))
        except EvidenceError as fault:
            gaps.append(Gap(f"text of {code.owner}", str(fault)))
    if system.kernel.symbols.losses is not None:
        images = [unaccused(image, gaps) for image in images]
    return TextSites(images=tuple(images), gaps=tuple(sorted(set(gaps))))


def unaccused(image: CodeImage, gaps: list[Gap]) -> CodeImage:
    """The image without what nobody explains, where symbols that might explain it are lost; a gap says so."""
    owned = tuple(deviation for deviation in image.deviations if deviation.owner)
    left = len(image.deviations) - len(owned)
    if left:
        gaps.append(Gap(f"{left} altered places of {image.name}", "not every symbol could be read"))
    return msgspec.structs.replace(image, deviations=owned)


def each_text(system: System, gaps: list[Gap]) -> Iterator[tuple[str, int, int]]:
    """Owner and half-open range of the text of the kernel and of every module that is not just being loaded.

    Raises:
        MissingDescription: the kernel's text is not known.
    """
    system.kernel.symbols.address("_stext")
    system.kernel.symbols.address("_etext")
    loading = {module.name for module in system.modules.items if _is_loading(system, module)}
    for owned in system.ranges:
        if owned.section is not Section.TEXT:
            continue
        if owned.owner in loading:
            gaps.append(Gap(f"text of module {owned.owner}", "it is being loaded, its patch sites are not done"))
            continue
        yield owned.owner, owned.start, owned.end


def _is_loading(system: System, module: Module) -> bool:
    """Whether a module's text is not final yet; its state alone may be forged.

    While it is loaded it has memory for its init. It gets its list of sections behind the last patch of its text, right
    before its init function is called (load_module: mod_sysfs_setup, do_init_module).
    """
    if module.state == "live" or not any(area.section is Section.INIT for area in module.areas):
        return False
    try:
        return not number(system.kernel.object("struct module", module.address), "sect_attrs")
    except EvidenceError:
        return True


class _Described(NamedTuple):
    """What an object says of its own text: tables of sites, code without symbols, code that nothing runs any more."""

    tables: Mapping[str, Table]
    unnamed: Mapping[str, Extent] = {}
    dead: tuple[Dead, ...] = ()


def _image(system: System, registry: Registry, code: Code, described: _Described, gaps: list[Gap]) -> CodeImage:
    owner = code.owner
    symbols = system.symbols_of(owner)
    if symbols is None:
        gaps.append(Gap(f"function entries of module {owner}", "its symbols cannot be read"))
        symbols = Symbols(np.array([], np.uint64), (), "", f"module {owner}")
    tables = described.tables
    said = [one for one in each_sites(Place(system, code, tables, symbols, registry)) if _kept(one, gaps)]
    gaps += missing_pages(code)
    judged = judge_sites(system, code, said, registry.probes)
    found = [*judged.deviations, *each_probe(system, code, registry.probes)]
    reported = {one.address for one in found}
    blind = owner == KERNEL and static_calls.SECTION not in tables
    for stray in stray_branches(code, symbols, registry.landing, judged.known, described.dead, calls_modules=blind):
        found += _once(reported, _branch(system, code, stray))
    if is_ordered(system, owner):
        for entry in odd_entries(code, symbols, registry.landing, judged.known):
            found += _once(reported, _entry(system, code, entry))
    else:
        why = "its symbols contradict each other" if system.kernel.symbols.losses is None else "some symbols are lost"
        gaps.append(Gap("function entries of the kernel", why))
    if owner == KERNEL:
        found += _operations(system, registry)
    return CodeImage(
        name=owner,
        reference=_REFERENCE,
        compared=len(code.data) - sum(high - low for low, high in code.missing),
        sites=judged.counts,
        deviations=bounded(found),
    )


def _kept(one: Sites | Gap, gaps: list[Gap]) -> TypeGuard[Sites]:
    """Whether a mechanism said something; why not, and what it could not look up, are gaps."""
    if isinstance(one, Gap):
        gaps.append(one)
        return False
    gaps += [Gap(*unseen) for unseen in one.unseen]
    return True


def _describe(system: System, owner: str, gaps: list[Gap]) -> _Described:
    module = system.module(owner)
    if module is None:
        return _Described(kernel_tables(system.kernel, gaps))
    try:
        places = module_sections(system.kernel, module)
    except EvidenceError as fault:
        gaps.append(Gap(f"sections of module {owner}", str(fault)))
        return _Described(module_tables(system.kernel, module, {}, gaps))
    tables = module_tables(system.kernel, module, places, gaps)
    try:
        unnamed = unnamed_code(system.kernel, module, places, tables)
    except EvidenceError as fault:
        gaps.append(Gap(f"code without symbols of module {owner}", str(fault)))
        return _Described(tables)
    return _Described(tables, unnamed, dead_code(places, unnamed))


def missing_pages(code: Code) -> Iterator[Gap]:
    """What of a text is not in the evidence."""
    for low, high in code.missing:
        pages = -(-(high - low) // PAGE_SIZE)
        yield Gap(f"{pages} {'page' if pages == 1 else 'pages'} of {code.owner} text at {low:#x}", "not in the image")


def _once(reported: set[int], one: Deviation) -> list[Deviation]:
    """A place is reported by the first that finds it."""
    if one.address in reported:
        return []
    reported.add(one.address)
    return [one]


def _branch(system: System, code: Code, stray: Stray) -> Deviation:
    return deviation(
        system,
        kind="branch",
        address=stray.address,
        found=code.piece(stray.address, stray.size),
        legal=f"no branch to foreign code; this one leads to {system.name_of(stray.target)}",
    )


def _entry(system: System, code: Code, entry: Entry) -> Deviation:
    where = "" if entry.target is None else f": {system.name_of(entry.target)}"
    return deviation(
        system,
        kind="function entry",
        address=entry.address,
        found=code.piece(entry.address, entry.size),
        legal=f"the function's own first instruction; this one {entry.how}{where}",
    )


def _operations(system: System, registry: Registry) -> Iterator[Deviation]:
    """Operations registered with ftrace that divert functions for a module, or call what is nobody's."""
    for tracer in each_unsound(system, registry.tracers.registered):
        try:
            found = system.kernel.space.read(tracer.address, 8)  # type: ignore[arg-type] # a virtual address
        except MissingMemory:
            continue
        yield deviation(
            system,
            kind="ftrace operations",
            address=tracer.address,
            found=found,
            legal=f"operations that only watch, or the kernel's own; these call {system.name_of(tracer.function)}",
        )
