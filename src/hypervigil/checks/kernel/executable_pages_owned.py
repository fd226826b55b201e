"""Every page that the processor may execute in kernel mode belongs to somebody."""

from collections.abc import Iterator

from hypervigil.core.check import check
from hypervigil.core.finding import CodeRef, Observation, Violation
from hypervigil.facts.kernel import ExecutableMemory


@check("KRN-005")
def executable_pages_owned(memory: ExecutableMemory) -> Iterator[Violation | Observation]:
    """Report executable regions that no part of the kernel claims, and say what is about to be freed."""
    for region in memory.regions:
        if region.kind == "freed":
            yield Observation(
                message=f"executable memory at {region.start:#x} is on no list any more: it is {region.owner}",
                object=region.owner,
                address=region.start,
                spans=(*region.table_span, *region.span),
            )
        if not region.owner:
            size = region.end - region.start
            yield Violation(
                message=f"{size:#x} bytes at {region.start:#x} are executable and belong to nobody",
                object="executable memory",
                address=region.start,
                found="executable",
                expected="not executable, or owned by the kernel, a module or a just-in-time compiler",
                spans=(*region.table_span, *region.span),
                code=(CodeRef(title="what stands there", address=region.start, size=64),),
            )
