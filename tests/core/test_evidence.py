import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import ProgramError
from hypervigil.core.evidence import Evidence, Span


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 5), (5, 4), (-1, 4), (-2, -1)])
def test_a_span_that_is_no_range_is_our_mistake(start: int, end: int) -> None:
    with pytest.raises(ProgramError, match="of image is not a range"):
        Span("image", start, end)


def test_a_span_is_half_open() -> None:
    assert Span("image", 0, 1).size == 1
    assert Span("image", 0x1000, 0x2000).size == 0x1000


@given(st.integers(0, 2**52), st.integers(1, 2**30))
def test_any_range_is_a_span(start: int, size: int) -> None:
    assert Span("image", start, start + size).size == size


def test_spans_are_ordered_by_evidence_start_and_end() -> None:
    assert Span("a", 1, 2) < Span("a", 1, 3) < Span("a", 2, 3) < Span("b", 0, 1)


def test_evidence_and_spans_cannot_be_changed() -> None:
    evidence = Evidence(id="image", kind="memory/raw", name="a.raw", size=1)
    for value, field in ((evidence, "digest"), (Span("image", 0, 1), "end")):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(value, field, "x")


def test_what_is_not_known_of_evidence_is_empty() -> None:
    evidence = Evidence(id="image", kind="memory/raw", name="a.raw", size=1)
    assert (evidence.digest, evidence.acquired, evidence.notes) == ("", "", ())
