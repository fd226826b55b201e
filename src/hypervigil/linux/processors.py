"""Processors as the image's format recorded them."""

from collections.abc import Iterator

from hypervigil.core.errors import EvidenceError
from hypervigil.core.units import PhysAddr
from hypervigil.memory.kernel import Kernel
from hypervigil.memory.pagetable import translate

_FRAME = 0x000F_FFFF_FFFF_F000


def host_processors(kernel: Kernel) -> Iterator[tuple[int, PhysAddr]]:
    """``(number, top page table)`` of each processor that ran on the host's own tables.

    One that ran a guest at that moment shows the guest's registers: its tables do not map the host's kernel.
    """
    anchor = kernel.symbols.address("_stext")
    for state in kernel.memory.registers:
        if state.cr3 is None:
            continue
        root = PhysAddr(state.cr3 & _FRAME)
        try:
            translate(kernel.memory, root, kernel.location.levels, anchor)
        except EvidenceError:
            continue
        yield state.cpu, root
