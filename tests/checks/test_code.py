import msgspec
import pytest

from hypervigil.checks.code import each_deviation
from hypervigil.core.evidence import Span
from hypervigil.core.finding import Observation, Violation
from hypervigil.facts.code import CodeImage, Deviation
from hypervigil.facts.kernel import TextSites

SPAN = (Span("memory", 0, 5),)
DEVIATION = Deviation(
    address=0x1000,
    size=5,
    kind="branch",
    symbol="vfs_read+0x4",
    found="e900000000",
    legal="a branch to a function",
    span=SPAN,
)


def said(*deviations: Deviation, code: bool = True) -> list[Violation | Observation]:
    image = CodeImage(name="kernel", reference="itself", compared=4096, deviations=deviations)
    return list(each_deviation(TextSites(images=(image,)), code=code))


def with_(**changed: object) -> Deviation:
    return msgspec.structs.replace(DEVIATION, **changed)


def test_a_deviation_of_nobody_is_a_violation() -> None:
    (found,) = said(DEVIATION)
    assert isinstance(found, Violation)
    assert found.message == "vfs_read+0x4 in kernel holds e900000000, legal is a branch to a function"
    assert (found.object, found.address, found.spans) == ("vfs_read+0x4", 0x1000, SPAN)
    assert (found.found, found.expected) == ("e900000000", "a branch to a function")


def test_a_deviation_with_an_owner_is_an_observation() -> None:
    (found,) = said(with_(owner="kprobe at vfs_read"))
    assert isinstance(found, Observation)
    assert found.message == "vfs_read+0x4 is altered by kprobe at vfs_read (branch)"
    assert (found.object, found.address, found.spans) == ("vfs_read+0x4", 0x1000, SPAN)


def test_deviations_of_every_image_are_told_in_order() -> None:
    images = tuple(
        CodeImage(
            name=name,
            reference="itself",
            compared=1,
            deviations=(with_(symbol=name), with_(symbol=f"{name}2", owner="o")),
        )
        for name in ("kernel", "kvm")
    )
    found = list(each_deviation(TextSites(images=images), code=True))
    assert [f.object for f in found] == ["kernel", "kernel2", "kvm", "kvm2"]


@pytest.mark.parametrize(
    ("expected", "code", "size", "shown"),
    [((), True, 5, 32), ((), True, 64, 64), ((), False, 5, 5), (("9090909090",), True, 5, 5)],
)
def test_code_is_shown_with_what_follows_unless_the_original_stands_beside_it(
    expected: tuple[str, ...],
    code: bool,  # noqa: FBT001 - a case
    size: int,
    shown: int,
) -> None:
    (found,) = said(with_(expected=expected, size=size), code=code)
    assert isinstance(found, Violation)
    (reference,) = found.code
    assert (reference.size, reference.code) == (shown, code)
    assert reference.expected == (expected[0] if expected else "")
    assert reference.title == "vfs_read+0x4 (branch)"


def test_a_long_stretch_is_shortened_in_the_message_only() -> None:
    (found,) = said(with_(found="90" * 200))
    assert isinstance(found, Violation)
    assert len(found.message) < 150
    assert found.found == "90" * 200
