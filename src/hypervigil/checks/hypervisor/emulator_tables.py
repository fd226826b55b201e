"""The instruction emulator's tables lead to the emulator's own functions."""

from collections.abc import Iterator

from hypervigil.checks.targets import each_misdirected
from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.hypervisor import EmulatorTables
from hypervigil.facts.pointers import Section


@check("KVM-005")
def emulator_tables(table: EmulatorTables) -> Iterator[Violation]:
    """Judge opcode tables and ``emulate_ops`` slot by slot."""
    yield from each_misdirected(table.slots, ("kvm",), sections=(Section.TEXT, Section.RODATA, Section.DATA))
