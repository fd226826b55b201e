"""The rule that all comparisons of code share: a deviation without an owner is a violation, with one an observation."""

from collections.abc import Iterator

from hypervigil.core.finding import CodeRef, Observation, Violation
from hypervigil.facts.code import CodeComparison, CodeImage, Deviation

_CONTEXT = 32


def each_deviation(comparison: CodeComparison, *, code: bool) -> Iterator[Violation | Observation]:
    """Yield what the comparison found, object by object.

    Args:
        comparison: the facts.
        code: whether to show the bytes as instructions.
    """
    if comparison.unused:
        yield Observation(message=f"not used: {'; '.join(comparison.unused)}")
    for image in comparison.images:
        for deviation in image.deviations:
            if deviation.owner:
                yield Observation(
                    message=f"{deviation.symbol} is altered by {deviation.owner} ({deviation.kind})",
                    object=deviation.symbol,
                    address=deviation.address,
                    spans=deviation.span,
                )
            else:
                yield _violation(image, deviation, code=code)


def _violation(image: CodeImage, deviation: Deviation, *, code: bool) -> Violation:
    expected = deviation.expected[0] if deviation.expected else ""
    return Violation(
        message=f"{deviation.symbol} in {image.name} holds {deviation.found[:64]}, legal is {deviation.legal}",
        object=deviation.symbol,
        address=deviation.address,
        found=deviation.found,
        expected=expected or deviation.legal,
        spans=deviation.span,
        code=(
            CodeRef(
                title=f"{deviation.symbol} ({deviation.kind})",
                address=deviation.address,
                size=max(deviation.size, _CONTEXT) if code and not expected else deviation.size,
                code=code,
                expected=expected,
            ),
        ),
    )
