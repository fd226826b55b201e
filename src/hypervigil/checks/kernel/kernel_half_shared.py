"""All processes share the kernel's half of the page tables."""

from collections.abc import Iterator

from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.kernel import KernelHalf


@check("KRN-008")
def kernel_half_shared(half: KernelHalf) -> Iterator[Violation]:
    """Report top-level entries of a process that differ from ``swapper_pg_dir``."""
    for entry in half.private:
        yield Violation(
            message=f"process {entry.process} maps {entry.start:#x} differently from the rest of the system",
            object=f"page table of {entry.process}",
            address=entry.start,
            found=f"{entry.entry:#x}",
            expected=f"{entry.wanted:#x}",
            spans=entry.span,
        )
