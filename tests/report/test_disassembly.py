from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.report import Line
from hypervigil.report.disassembly import LIMIT, Pair, side_by_side

NOP = Line(0x10, "90", "nop")
JMP = Line(0x10, "e9", "jmp 0x99")
RET = Line(0x11, "c3", "ret")

SAME = Pair(before=RET, after=RET, same=True)

LINES = st.lists(st.builds(Line, st.integers(0, 3), st.sampled_from(["90", "c3"]), st.just("")), max_size=8).map(tuple)


def test_a_changed_line_faces_what_it_replaced() -> None:
    assert side_by_side((NOP, RET), (JMP, RET)) == [
        Pair(before=NOP, after=JMP, same=False),
        SAME,
    ]


def test_an_inserted_line_faces_nothing_and_leaves_the_rest_equal() -> None:
    assert side_by_side((RET,), (JMP, RET)) == [
        Pair(before=None, after=JMP, same=False),
        SAME,
    ]


def test_with_one_side_empty_nothing_is_the_same() -> None:
    assert side_by_side((), (NOP,)) == [Pair(before=None, after=NOP, same=False)]
    assert side_by_side((NOP,), ()) == [Pair(before=NOP, after=None, same=False)]


def test_lines_that_differ_in_their_bytes_only_are_not_the_same() -> None:
    assert not side_by_side((NOP,), (Line(0x10, "6690", "nop"),))[0].same


def test_alignment_is_bounded() -> None:
    lines = tuple(Line(at, "90", "nop") for at in range(5_000))
    assert len(side_by_side(lines, lines)) == LIMIT


@given(LINES, LINES)
def test_no_line_is_lost_or_reordered(before: tuple[Line, ...], after: tuple[Line, ...]) -> None:
    pairs = side_by_side(before, after)
    assert tuple(p.before for p in pairs if p.before) == before
    assert tuple(p.after for p in pairs if p.after) == after
    assert all((p.before == p.after) == p.same for p in pairs)
