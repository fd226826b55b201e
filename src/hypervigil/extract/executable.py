"""Executable memory: who owns it, what rights it has, what stands behind the last function."""

import bisect
import itertools
import operator
from collections.abc import Iterable, Iterator

import msgspec

from hypervigil.core.errors import EvidenceError, MissingDescription
from hypervigil.core.facts import Gap, Observed
from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.extract.loading import Subject, extracts
from hypervigil.facts.kernel import ExecutableMemory, ExecutableRegion, ExecutableSlack, Residue
from hypervigil.facts.pointers import Section
from hypervigil.linux import slack
from hypervigil.linux.executable import Claim, executable_claims
from hypervigil.linux.freeing import memory_being_freed
from hypervigil.linux.members import number
from hypervigil.linux.modules import Module, module_sections
from hypervigil.linux.slack import find_residue
from hypervigil.linux.system import KERNEL, System
from hypervigil.linux.text.tables import module_tables
from hypervigil.linux.text.unnamed import unnamed_code
from hypervigil.linux.vmap import VmapArea, vmap_areas
from hypervigil.memory.pagetable import Sweep, sweep

_MASK = PAGE_SIZE - 1
_VMALLOC_SPAN = {4: 32 << 40, 5: 12800 << 40}
_MODULES_START = 0xFFFF_FFFF_C000_0000
_ENTRY = 8
_LIVE = "live"
_USER_HALF = 1 << 63
_NOBODY = ("", "")
_UNUSED = ("unused, holds traps only", "unused")
_PADDINGS = (b"\x00", b"\xcc", b"\x90")
_LEAST_PADDING = 16
_MOST_RUNS = 1 << 16
_MOST_SEARCHED = 1 << 26
_MOST_GAPS = 1 << 10
"""Ranges of executable memory, bytes of it that nobody claims, and gaps in these. Kernels have far less of each; who
forges page tables can make any amount out of one page."""

_FORGED = "the page tables refer to themselves or are forged"


class _Run(msgspec.Struct):
    """Adjacent leaves with the same rights."""

    start: int
    end: int
    writable: bool
    user: bool
    table: int


@extracts(ExecutableMemory)
def executable_memory(subject: Subject) -> ExecutableMemory:
    """Sweep the kernel's page tables and give every executable range its owner.

    Nobody can own the user half: nothing is mapped there in ``swapper_pg_dir`` (x86_64_start_kernel clears it), so
    neither a claim nor a content of traps excuses what is.
    """
    system = subject.system
    kernel = system.kernel
    swept = sweep(kernel.memory, kernel.location.root, kernel.location.levels)
    areas, gaps = _areas(system)
    claims = executable_claims(kernel, areas.items, system.modules.items)
    owned = sorted([*_text_claims(system), *claims.items])
    whole = not (gaps or claims.gaps or system.modules.gaps)
    gaps += [*swept.gaps, *_expected(system, swept, areas), *claims.gaps, *system.modules.gaps]
    runs = list(itertools.islice(_runs(swept), _MOST_RUNS + 1))
    if len(runs) > _MOST_RUNS:
        runs.pop()
        gaps.append(Gap(f"executable memory behind {runs[-1].end:#x}", f"more than {_MOST_RUNS} ranges: {_FORGED}"))
    regions = _regions(system, runs, owned, whole=whole)
    if any(not region.owner for region in regions.items):
        freed = tuple(memory_being_freed(system, subject.census.tasks.items, areas.items))
        regions = _regions(system, runs, sorted([*owned, *freed]), whole=whole) if freed else regions
    return ExecutableMemory(
        regions=tuple(sorted(regions.items, key=lambda r: r.start)), gaps=tuple(sorted({*gaps, *regions.gaps}))
    )


def _regions(system: System, runs: list[_Run], owned: list[Claim], *, whole: bool) -> Observed[ExecutableRegion]:
    """Every run, cut by what is owned."""
    regions: list[ExecutableRegion] = []
    nobodys: list[tuple[_Run, int, int]] = []
    reach = list(itertools.accumulate((claim.end for claim in owned), max))
    for run in runs:
        if run.start < _USER_HALF:
            regions.append(_region(system, run, (run.start, run.end), _NOBODY))
            continue
        first = bisect.bisect_right(reach, run.start)
        for start, end, claim in _cut(run, itertools.islice(owned, first, None)):
            if claim is None:
                nobodys.append((run, start, end))
            else:
                regions.append(_region(system, run, (start, end), (claim.owner, claim.kind)))
    found = _of_nobody(system, nobodys, whole=whole)
    return Observed((*regions, *found.items), found.gaps)


def _of_nobody(system: System, stretches: list[tuple[_Run, int, int]], *, whole: bool) -> Observed[ExecutableRegion]:
    """Search what nobody claims, the smallest first: code that hides is small, a forged mapping may be huge.

    Args:
        system: the kernel.
        stretches: each with the run that it is of, as half-open ranges.
        whole: whether every possible owner was read; if not, what is found accuses nobody.
    """
    regions: list[ExecutableRegion] = []
    gaps: list[Gap] = []
    left = _MOST_SEARCHED
    for run, start, end in sorted(stretches, key=lambda s: (s[2] - s[1], s[1])):
        stop = min(end, start + left)
        left -= stop - start
        if stop < end:
            gaps.append(Gap(f"executable memory at {stop:#x}, {end - stop} bytes", f"too much of it: {_FORGED}"))
        found = find_residue(system.kernel.space, start, stop, traps_only=True)
        gaps += found.gaps
        if found.items and whole:
            regions += _unclaimed(system, run, (start, stop), [(r.start, r.end) for r in found.items])
        elif found.items:
            gaps.append(Gap(f"owner of executable memory at {start:#x}", "not every possible owner could be read"))
        elif start < stop:
            regions.append(_region(system, run, (start, stop), _UNUSED))
    return Observed(tuple(regions), _few(gaps))


def _few(gaps: list[Gap]) -> tuple[Gap, ...]:
    """Gaps that a reader can read, and the number of the others."""
    if len(gaps) <= _MOST_GAPS:
        return tuple(gaps)
    more = len(gaps) - _MOST_GAPS
    return (*gaps[:_MOST_GAPS], Gap(f"{more} more ranges of executable memory", "they cannot be read, or are forged"))


def _areas(system: System) -> tuple[Observed[VmapArea], list[Gap]]:
    try:
        areas = vmap_areas(system.kernel)
    except EvidenceError as fault:
        return Observed(()), [Gap("vmap areas", str(fault))]
    return areas, list(areas.gaps)


def _text_claims(system: System) -> Iterator[Claim]:
    """Text of the kernel and of modules, to the end of the last page: what stands there is judged as slack."""
    for owned in system.ranges:
        if owned.section is Section.TEXT:
            name = "kernel text" if owned.owner == KERNEL else f"module {owned.owner}"
            yield Claim(owned.start & ~_MASK, (owned.end + _MASK) & ~_MASK, name, "text")
        elif owned.section is Section.INIT and owned.owner != KERNEL:
            yield Claim(owned.start & ~_MASK, (owned.end + _MASK) & ~_MASK, f"module {owned.owner} (init)", "text")


def _runs(swept: Sweep) -> Iterator[_Run]:
    leaves = swept.leaves
    run: _Run | None = None
    columns = (leaves.start, leaves.size, leaves.writable, leaves.user, leaves.table)
    for start, size, writable, user, table in zip(*(c.tolist() for c in columns), strict=True):
        if run is not None and run.end == start and (run.writable, run.user) == (writable, user):
            run.end = start + size
            continue
        if run is not None:
            yield run
        run = _Run(start, start + size, writable, user, table)
    if run is not None:
        yield run


def _cut(run: _Run, claims: Iterable[Claim]) -> Iterator[tuple[int, int, Claim | None]]:
    """Cut a run into claimed and unclaimed stretches by sorted claims; where these overlap the first one counts."""
    at = run.start
    for claim in itertools.takewhile(lambda claim: claim.start < run.end, claims):
        start, end = max(claim.start, at), min(claim.end, run.end)
        if start >= end:
            continue
        if at < start:
            yield at, start, None
        yield start, end, claim
        at = end
    if at < run.end:
        yield at, run.end, None


def _unclaimed(
    system: System, run: _Run, whole: tuple[int, int], odd: list[tuple[int, int]]
) -> Iterator[ExecutableRegion]:
    """Stretches of nobody that hold more than traps, and the rest of them as unused."""
    edges = sorted({*whole, *itertools.chain.from_iterable(odd)})
    for start, end in itertools.pairwise(edges):
        yield _region(system, run, (start, end), _NOBODY if (start, end) in odd else _UNUSED)


def _region(system: System, run: _Run, place: tuple[int, int], claim: tuple[str, str]) -> ExecutableRegion:
    """A region at ``[start, end)`` with its owner and kind."""
    start, end = place
    try:
        span = system.spans(start, min(end - start, 64))
    except EvidenceError:
        span = ()
    return ExecutableRegion(
        start=start,
        end=end,
        owner=claim[0],
        kind=claim[1],
        writable=run.writable,
        user=run.user,
        table_span=system.kernel.memory.spans(PhysAddr(run.table), _ENTRY),
        span=span,
    )


def _expected(system: System, swept: Sweep, areas: Observed[VmapArea]) -> Iterator[Gap]:
    """Zero tables, in a format where zero may mean missing, count as gaps where the kernel must have mappings.

    An empty table is lawful in vmalloc space where no area is live: the kernel makes the upper ones in advance
    (6eb82f994026 "x86/mm: Pre-allocate P4D/PUD pages for vmalloc area", 5.9) and keeps the lower ones when areas go.
    """
    low, high = _vmalloc_space(system)
    for start, size in swept.empty_tables:
        end = start + size
        inside = low <= start < high or start >= _MODULES_START
        if not inside or any(area.holds(start, end) for area in areas.items):
            yield Gap(f"page table for {start:#x}", "it is all zero, which this format cannot tell from missing")


def _vmalloc_space(system: System) -> tuple[int, int]:
    try:
        base = system.kernel.space.u64(system.kernel.symbols.address("vmalloc_base"))
    except EvidenceError:
        return 0, 0
    return base, base + _VMALLOC_SPAN[system.kernel.location.levels]


@extracts(ExecutableSlack)
def executable_slack(subject: Subject) -> ExecutableSlack:
    """Look behind the last function of the kernel and of each module."""
    system = subject.system
    looked_at = 0
    residues: list[Residue] = []
    gaps: list[Gap] = list(system.modules.gaps)
    for owner, start, end in _each_slack(system, gaps):
        looked_at += max(0, end - start)
        found = find_residue(system.kernel.space, start, end)
        gaps += found.gaps
        residues += [
            Residue(owner=owner, start=r.start, end=r.end, span=system.spans(r.start, r.end - r.start))
            for r in (_unexplained(system, owner, found.items, gaps) if found.items else ())
        ]
    return ExecutableSlack(looked_at=looked_at, residues=tuple(residues), gaps=tuple(sorted(set(gaps))))


def _unexplained(
    system: System, owner: str, found: Iterable[slack.Residue], gaps: list[Gap]
) -> Iterator[slack.Residue]:
    """Residue without the code of a module that has no symbols; nothing where that code cannot be read."""
    module = system.module(owner)
    try:
        known = () if module is None else sorted(_unnamed(system, module))
    except EvidenceError as fault:
        gaps.append(Gap(f"slack of module {owner}", str(fault)))
        return
    for residue in found:
        at = residue.start
        for low, high in (*known, (residue.end, residue.end)):
            if at < min(low, residue.end):
                yield from find_residue(system.kernel.space, at, min(low, residue.end)).items
            at = max(at, high)


def _unnamed(system: System, module: Module) -> Iterator[tuple[int, int]]:
    """Where a module's code without symbols stands; none if it is live and keeps no list of its sections.

    Raises:
        MissingMemory: it is not in the image.
        MissingDescription: its types are not known, or the module is just being loaded or unloaded.
    """
    kernel = system.kernel
    if not number(kernel.object("struct module", module.address), "sect_attrs"):
        if module.state != _LIVE:
            raise MissingDescription(f"module {module.name} is {module.state} and keeps no list of its sections")
        return
    places = module_sections(kernel, module)
    lost: list[Gap] = []
    tables = module_tables(kernel, module, places, lost)
    if lost:
        raise MissingDescription(str(lost[0]))
    yield from unnamed_code(kernel, module, places, tables).values()


def _each_slack(system: System, gaps: list[Gap]) -> Iterator[tuple[str, int, int]]:
    end = system.kernel.symbols.address("_etext")
    yield KERNEL, _kernel_text_end(system, end), (end + _MASK) & ~_MASK
    for module in system.modules.items:
        for area in module.areas:
            if area.section is not Section.TEXT:
                continue
            try:
                yield module.name, _last_function_end(system, module.name, area.start, area.end), area.end
            except EvidenceError as fault:
                gaps.append(Gap(f"slack of module {module.name}", str(fault)))


def _kernel_text_end(system: System, end: int) -> int:
    """Where the kernel's last function ends: kallsyms has no sizes, so at the first padding behind its symbol.

    ``_etext`` may lie far behind it, since some thunks are placed at multiples of 2 MiB.
    """
    if system.kernel.symbols.doubtful(end - 1):
        raise MissingDescription("which function of the kernel is the last is lost from its symbols")
    position = system.kernel.symbols.nearest(end - 1)
    if position is None:
        return end
    start = system.kernel.symbols.addresses[position]
    return _padding_behind(system, start, end) if end - start > PAGE_SIZE else end


def _padding_behind(system: System, start: int, end: int) -> int:
    """Where the first padding behind a symbol without a size begins, at most a page behind it."""
    body = system.kernel.space.read(VirtAddr(start), min(end - start, PAGE_SIZE))
    return start + min((at for byte in _PADDINGS if (at := body.find(byte * _LEAST_PADDING)) >= 0), default=len(body))


def _last_function_end(system: System, name: str, start: int, end: int) -> int:
    """Where the last function of a module ends; if its symbol has no size, at the first padding behind it."""
    symbols = system.symbols_of(name)
    if symbols is None or symbols.sizes is None:
        raise MissingDescription(f"the symbols of module {name} cannot be read")
    inside = symbols.between(start, end)
    if not inside:
        raise MissingDescription(f"module {name} has no symbol in its text")
    places, sizes = symbols.addresses[inside.start : inside.stop], symbols.sizes[inside.start : inside.stop]
    last = min(end, max(map(operator.add, places, sizes)))
    return VirtAddr(last if last > places[-1] else _padding_behind(system, places[-1], end))
