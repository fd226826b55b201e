"""The rule that all cross-views share: what one independent view shows, every other must show or be excused."""

from collections.abc import Iterator

from hypervigil.core.finding import Violation
from hypervigil.facts.views import CrossView, Member


def each_hidden(views: CrossView, thing: str) -> Iterator[Violation]:
    """Yield a violation for every member that a view lacks without an excuse.

    Args:
        views: the facts.
        thing: what a member is, such as ``module``.
    """
    for member in views.members:
        excused = {excuse.partition(": ")[0] for excuse in member.excused}
        missing = [view for view in views.views if view not in member.views and view not in excused]
        if missing and member.views:
            yield _hidden(member, thing, missing)


def _hidden(member: Member, thing: str, missing: list[str]) -> Violation:
    return Violation(
        message=f"{thing} {member.name} is hidden from {', '.join(missing)}; {', '.join(member.views)} shows it",
        object=f"{thing} {member.name}",
        address=member.key,
        found=f"seen by {', '.join(member.views)}",
        expected=f"seen by {', '.join((*member.views, *missing))}",
        spans=member.span,
    )
