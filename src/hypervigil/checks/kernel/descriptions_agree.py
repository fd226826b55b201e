"""What the kernel's descriptions say of it agrees, source by source."""

from collections import Counter
from collections.abc import Iterator

from hypervigil.core.check import check
from hypervigil.core.finding import Violation
from hypervigil.facts.kernel import SelfDescription, Statement


@check("KRN-001")
def descriptions_agree(description: SelfDescription) -> Iterator[Violation]:
    """Compare all claims about one subject."""
    for statement in description.statements:
        values = {claim.value for claim in statement.claims}
        if len(values) > 1:
            said = "; ".join(f"{claim.source} says {claim.value}" for claim in statement.claims)
            first = statement.claims[0]
            odd = _odd_one(statement)
            yield Violation(
                message=f"descriptions of {statement.subject} contradict each other: {said}",
                object=statement.subject,
                address=odd,
                found=first.value,
                expected=" = ".join(claim.source for claim in statement.claims),
                spans=tuple(span for claim in statement.claims for span in claim.span),
            )


def _odd_one(statement: Statement) -> int | None:
    """Where the claim stands that the fewest others share; of several, the first."""
    shared = Counter(claim.value for claim in statement.claims)
    placed = [claim for claim in statement.claims if claim.address is not None]
    return min(placed, key=lambda claim: shared[claim.value]).address if placed else None
