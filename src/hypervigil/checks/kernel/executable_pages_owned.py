"""Every page that the processor may execute in kernel mode belongs to somebody."""

from collections.abc import Iterator

from hypervigil.core.check import check
from hypervigil.core.finding import CodeRef, Violation
from hypervigil.facts.kernel import ExecutableMemory


@check("KRN-005")
def executable_pages_owned(memory: ExecutableMemory) -> Iterator[Violation]:
    """Report executable regions that no part of the kernel claims."""
    for region in memory.regions:
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
