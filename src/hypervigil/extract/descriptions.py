"""What the kernel says of itself, source by source."""

from hypervigil.core.errors import MissingMemory
from hypervigil.core.evidence import Span
from hypervigil.core.facts import Gap
from hypervigil.core.units import PAGE_SIZE
from hypervigil.extract.loading import Subject, extracts
from hypervigil.facts.kernel import Claim, SelfDescription, Statement, SymbolTable
from hypervigil.linux.exports import compare_exports
from hypervigil.linux.identity import each_said
from hypervigil.linux.reference import each_reference_said
from hypervigil.linux.system import System

_ENTRY = 8


@extracts(SelfDescription, last=True)
def self_description(subject: Subject) -> SelfDescription:
    """Gather every claim, and group them by what they are about."""
    system = subject.system
    claims: dict[str, list[Claim]] = {}
    gaps: list[Gap] = []
    for said in (*each_said(system), *each_reference_said(system, subject.references)):
        if isinstance(said, Gap):
            gaps.append(said)
        else:
            span = said.span or _somewhere(system)
            claim = Claim(source=said.source, value=said.value, span=span, address=said.address)
            claims.setdefault(said.subject, []).append(claim)
    statements = tuple(Statement(subject=what, claims=tuple(claims[what])) for what in sorted(claims))
    return SelfDescription(statements=statements, gaps=tuple(sorted(set(gaps))))


def _somewhere(system: System) -> tuple[Span, ...]:
    """A claim that follows from the page tables as a whole cites the top one."""
    return system.kernel.memory.spans(system.kernel.location.root, PAGE_SIZE)


@extracts(SymbolTable)
def symbol_table(subject: Subject) -> SymbolTable:
    """The symbol table's own order, and the export tables against it."""
    system = subject.system
    symbols = system.kernel.symbols
    faults: list[Claim] = []
    table = system.kernel.table
    lost = [Gap("kallsyms", one.text) for one in table.contradictions if one.lost] if table is not None else []
    if table is not None:
        places = [(one.text, system.kernel.table_address(one.at)) for one in table.contradictions if not one.lost]
        faults += [Claim(source="kallsyms", value=text, span=_shown(system, at), address=at) for text, at in places]
    exports = compare_exports(system.kernel)
    faults += [
        Claim(source=f"export {e.name}", value=e.message, span=system.spans(e.entry, e.size), address=e.entry)
        for e in exports.items
    ]
    return SymbolTable(count=len(symbols), exports=exports.compared, faults=tuple(faults), gaps=(*exports.gaps, *lost))


def _shown(system: System, address: int) -> tuple[Span, ...]:
    """The first bytes of what a table says; it was read as physical memory, so it may not be mapped any more."""
    try:
        return system.spans(address, _ENTRY)
    except MissingMemory:
        return _somewhere(system)
