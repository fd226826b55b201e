"""Facts and checks made up for the engine: a door and its lock."""

from collections.abc import Callable, Iterator

from hypervigil.core.check import Check, CheckFunction, Metadata, check, check_id_of, needs_of
from hypervigil.core.evidence import Span
from hypervigil.core.facts import Fact, require
from hypervigil.core.finding import Confidence, Observation, Severity, Violation

SPAN = Span("image", 0, 8)

Says = Callable[[], Iterator[Violation | Observation]]


class Door(Fact, frozen=True, kw_only=True):
    handles: tuple[str, ...]

    def __post_init__(self) -> None:
        require(self.handles, "a door without a handle")


class Lock(Fact, frozen=True, kw_only=True):
    open: bool = False


class Window(Fact, frozen=True, kw_only=True):
    """A fact that no check here reads."""


METADATA = Metadata(
    title="the door is locked",
    severity=Severity.HIGH,
    confidence=Confidence.MEDIUM,
    rationale="An open door lets anybody in.",
    remedy="Lock it.",
    false_positives="Somebody went out to fetch the post.",
    cannot_see="A second key.",
    standards=("ATT&CK T1014",),
    sources=("the locksmith",),
    profiles=("default", "night"),
)


@check("DOR-001")
def door_is_locked(door: Door, lock: Lock) -> Iterator[Violation | Observation]:
    for handle in door.handles:
        if handle == "strange":
            yield Observation(message=f"handle {handle} is new", object=handle)
        if lock.open:
            yield Violation(message=f"{handle} opens", spans=(SPAN,), object=handle)


def loaded(function: CheckFunction, about: Metadata = METADATA) -> Check:
    return Check(id=check_id_of(function) or "NONE-000", function=function, needs=needs_of(function), about=about)


def saying(*said: Violation | Observation) -> Check:
    """A check over a door that says the given things."""

    @check("DOR-002")
    def says(door: Door) -> Iterator[Violation | Observation]:
        del door
        yield from said

    return loaded(says)
