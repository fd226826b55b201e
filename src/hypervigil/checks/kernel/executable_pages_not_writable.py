"""No page of the kernel is both writable and executable, and none is executable for user mode."""

from collections.abc import Iterator

from hypervigil.core.check import check
from hypervigil.core.finding import Observation, Violation
from hypervigil.facts.kernel import ExecutableMemory


@check("KRN-006")
def executable_pages_not_writable(memory: ExecutableMemory) -> Iterator[Violation | Observation]:
    """Report executable regions that may be written, or entered from user mode."""
    for region in memory.regions:
        rights = [word for word, has in (("writable", region.writable), ("open to user mode", region.user)) if has]
        if rights == ["writable"] and region.kind == "BPF trampoline":
            yield Observation(
                message=f"{region.owner} at {region.start:#x} is executable and writable, as older kernels keep them",
                object=region.owner,
                address=region.start,
                spans=region.table_span,
            )
        elif rights:
            yield Violation(
                message=f"{region.owner or 'memory of nobody'} at {region.start:#x} is executable "
                f"and {' and '.join(rights)}, {region.end - region.start:#x} bytes",
                object=region.owner or "executable memory",
                address=region.start,
                found="executable, " + ", ".join(rights),
                expected="executable only",
                spans=(*region.table_span, *region.span),
            )
