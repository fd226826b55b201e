"""Behind the last function of executable pages stands only padding."""

from collections.abc import Iterator

from hypervigil.core.check import check
from hypervigil.core.finding import CodeRef, Violation
from hypervigil.facts.kernel import ExecutableSlack


@check("KRN-014")
def slack_is_padding(slack: ExecutableSlack) -> Iterator[Violation]:
    """Report bytes that are neither zero, nor int3, nor nop."""
    for residue in slack.residues:
        size = residue.end - residue.start
        yield Violation(
            message=f"{size} bytes at {residue.start:#x} stand behind the last function of {residue.owner}",
            object=f"executable slack of {residue.owner}",
            address=residue.start,
            found=f"{size} bytes of code or data",
            expected="padding",
            spans=residue.span,
            code=(CodeRef(title="what stands there", address=residue.start, size=min(size, 64)),),
        )
