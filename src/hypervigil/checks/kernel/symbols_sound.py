"""The kernel's symbol table is in order and agrees with the table of exported symbols."""

from collections.abc import Iterator

from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.kernel import SymbolTable


@check("KRN-002")
def symbols_sound(table: SymbolTable) -> Iterator[Violation]:
    """Report every fault of the table's own order and every export that it places elsewhere."""
    for fault in table.faults:
        yield Violation(
            message=fault.value, object=fault.source, address=fault.address, spans=fault.span, expected="agreement"
        )
