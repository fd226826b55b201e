"""What the kernel's descriptions say of it agrees, source by source."""

from collections.abc import Iterator

from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.kernel import SelfDescription


@check("KRN-001")
def descriptions_agree(description: SelfDescription) -> Iterator[Violation]:
    """Compare all claims about one subject."""
    for statement in description.statements:
        values = {claim.value for claim in statement.claims}
        if len(values) > 1:
            said = "; ".join(f"{claim.source} says {claim.value}" for claim in statement.claims)
            first = statement.claims[0]
            yield Violation(
                message=f"descriptions of {statement.subject} contradict each other: {said}",
                object=statement.subject,
                found=first.value,
                expected=" = ".join(claim.source for claim in statement.claims),
                spans=tuple(span for claim in statement.claims for span in claim.span),
            )
