"""Instructions compared by what they do."""

from hypothesis import given
from hypothesis import strategies as st

from hypervigil.linux.text.instructions import each_branch, each_step, meaning
from tests.linux.text.world import TEXT, WILD, rel

HERE, THERE = TEXT, TEXT + 0x1000


def test_a_call_that_was_moved_means_the_same() -> None:
    assert meaning(rel(b"\xe8", HERE, WILD), HERE) == meaning(rel(b"\xe8", THERE, WILD), THERE)
    assert meaning(rel(b"\xe8", HERE, WILD), HERE) != meaning(rel(b"\xe8", HERE, WILD), THERE)


def test_a_jump_may_become_short_and_be_padded() -> None:
    near = rel(b"\xe9", HERE, HERE + 0x20)
    assert meaning(near, HERE) == meaning(b"\xeb\x1e\xcc\xcc\xcc", HERE) == meaning(b"\xeb\x1e\x0f\x1f\x00", HERE)
    assert meaning(near, HERE) != meaning(b"\xeb\x1f\xcc\xcc\xcc", HERE)


def test_branches_within_the_code_are_relative_to_it() -> None:
    loop = b"\x48\xff\xc8\x75\xfb"
    assert meaning(loop, HERE) == meaning(loop, THERE)


def test_addresses_beside_the_code_are_absolute() -> None:
    here, there = b"\x48\x8b\x05\x00\x10\x00\x00", b"\x48\x8b\x05\x00\x00\x00\x00"
    assert meaning(here, HERE) == meaning(there, THERE)
    assert meaning(here, HERE) != meaning(here, THERE)


def test_nops_mean_nothing() -> None:
    assert meaning(b"\x0f\x1f\x44\x00\x00", HERE) == ()
    assert meaning(b"\xfa\x90\x90\x90\x90", HERE) == meaning(b"\xfa\x0f\x1f\x40\x00", HERE) == (("cli", ""),)


def test_branches_out_of_the_code() -> None:
    code = b"\xeb\x00" + rel(b"\xe8", HERE + 2, WILD) + rel(b"\x0f\x84", HERE + 7, THERE)
    assert list(each_branch(code, HERE)) == [(HERE + 2, WILD), (HERE + 7, THERE)]


@given(st.binary(max_size=64))
def test_any_bytes_are_steps_that_cover_them(data: bytes) -> None:
    steps = list(each_step(data, HERE))
    assert sum(step.size for step in steps) == len(data)
    assert [step.address for step in steps] == sorted({step.address for step in steps})
    meaning(data, HERE)
