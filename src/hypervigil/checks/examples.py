"""Examples of a check as facts: what its data file writes, in types."""

import msgspec

from hypervigil.core.check import Check, Example
from hypervigil.core.errors import ProgramError
from hypervigil.core.facts import Absent, Fact, FactOutcome, Unknown

_SPAN_FIELDS = 3


def facts_of(check: Check, example: Example) -> dict[type[Fact], FactOutcome]:
    """Build the facts that an example describes.

    A span is written ``["image", start, end]``.

    Raises:
        ProgramError: the example names no fact of its check, or its data is not of the fact's shape.
    """
    kinds = {need.__name__: need for need in check.needs}
    facts: dict[type[Fact], FactOutcome] = {}
    for name, data in example.facts.items():
        if name not in kinds:
            raise ProgramError(f"{check.id}, example {example.name!r}: {check.name} does not read {name}")
        if "unknown" in data:
            facts[kinds[name]] = Unknown(str(data["unknown"]))
        elif "absent" in data:
            facts[kinds[name]] = Absent(str(data["absent"]))
        else:
            facts[kinds[name]] = _fact(check, example, kinds[name], data)
    return facts


def _fact(check: Check, example: Example, kind: type[Fact], data: dict[str, object]) -> Fact:
    try:
        return msgspec.convert(_spelled_out(data), kind)
    except msgspec.ValidationError as fault:
        raise ProgramError(f"{check.id}, example {example.name!r}: {fault}") from fault


def _spelled_out(value: object) -> object:
    if isinstance(value, dict):
        return {key: _spelled_out(inner) for key, inner in value.items()}
    if isinstance(value, list):
        if len(value) == _SPAN_FIELDS and isinstance(value[0], str) and all(isinstance(v, int) for v in value[1:]):
            return {"evidence": value[0], "start": value[1], "end": value[2]}
        return [_spelled_out(inner) for inner in value]
    return value
