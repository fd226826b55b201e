"""All processes share the kernel's half of the page tables."""

from collections.abc import Iterator

from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.kernel import KernelHalf


@check("KRN-008")
def kernel_half_shared(half: KernelHalf) -> Iterator[Violation]:
    """Report top-level entries that differ from ``swapper_pg_dir``, and what that maps besides or shares."""
    for entry in half.private:
        yield Violation(
            message=f"process {entry.process} maps {entry.start:#x} differently from the rest of the system",
            object=f"page table of {entry.process}",
            address=entry.start,
            found=f"{entry.entry:#x}",
            expected=f"{entry.wanted:#x}",
            spans=entry.span,
        )
    for extra in half.user_half:
        yield Violation(
            message=f"the kernel's own table maps {extra.start:#x}, in the half that belongs to processes",
            object="swapper_pg_dir",
            address=extra.start,
            found=f"{extra.entry:#x}",
            expected="nothing: the kernel clears that half when it starts",
            spans=extra.span,
        )
    for again in half.repeated:
        yield Violation(
            message=f"the page table entry for {again.start:#x} leads to a table that another entry leads to as well",
            object="page tables of the kernel",
            address=again.start,
            found=f"{again.table:#x}",
            expected="a table of its own",
            spans=again.span,
        )
