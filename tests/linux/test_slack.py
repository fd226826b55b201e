from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.facts import Gap
from hypervigil.core.units import PAGE_SIZE
from hypervigil.linux import slack
from hypervigil.linux.slack import Residue, find_residue
from tests.memory.page_tables import Image

AT = 0xFFFF_FFFF_C000_0000
PADDINGS = (0x00, 0x90, 0xCC)


def image(content: bytes) -> Image:
    made = Image()
    made.page(AT, content)
    return made


def found(content: bytes, *, traps_only: bool = False) -> list[tuple[int, int]]:
    made = image(content)
    residues = find_residue(made.space(made.lime()), AT, AT + len(content), traps_only=traps_only)
    assert residues.gaps == ()
    return [(r.start - AT, r.end - AT) for r in residues.items]


@pytest.mark.parametrize("padding", PADDINGS)
def test_padding_is_no_residue(padding: int) -> None:
    content = bytes([padding]) * 64 + b"\xcc"
    assert found(content) == []
    assert found(content, traps_only=True) == ([] if padding == 0xCC else [(0, 64)])


def test_residue_is_cited_from_its_first_byte_to_its_last() -> None:
    assert found(b"\xcc" * 5 + b"\x48\x31\xc0" + b"\xcc" * 40 + b"\xc3") == [(5, 8), (48, 49)]


@pytest.mark.parametrize(("apart", "count"), [(1, 1), (15, 1), (16, 2), (17, 2)])
def test_stretches_less_than_16_bytes_apart_are_one(apart: int, count: int) -> None:
    assert len(found(b"\xcc" + b"\xe8" + b"\xcc" * apart + b"\xe8" + b"\xcc")) == count


def test_residue_may_cross_a_page() -> None:
    content = b"\xcc" * (PAGE_SIZE - 2) + b"\xe8" * 4 + b"\xcc" * (PAGE_SIZE - 2)
    assert found(content) == [(PAGE_SIZE - 2, PAGE_SIZE + 2)]


def test_missing_pages_beside_each_other_are_one_gap_and_never_padding() -> None:
    made = image(b"\xe8" * PAGE_SIZE * 5)
    frame = made.physical(AT)
    space = made.space(made.lime(*(frame + index * PAGE_SIZE for index in (1, 2, 4))))
    residues = find_residue(space, AT + 8, AT + 5 * PAGE_SIZE)
    assert residues.gaps == (
        Gap(f"executable memory at {AT + PAGE_SIZE:#x}, {2 * PAGE_SIZE} bytes", "not in the image"),
        Gap(f"executable memory at {AT + 4 * PAGE_SIZE:#x}, {PAGE_SIZE} bytes", "not in the image"),
    )
    assert residues.items == (
        Residue(AT + 8, AT + PAGE_SIZE),
        Residue(AT + 3 * PAGE_SIZE, AT + 4 * PAGE_SIZE),
    )


def test_nothing_stands_in_an_empty_range() -> None:
    for end in (AT, AT - 1, 0):
        assert find_residue(image(b"\xe8").space(), AT, end) == find_residue(image(b"").space(), AT, AT)


def test_a_large_range_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"\xcc" * 100 + b"\xe8" * PAGE_SIZE + b"\xcc" * 100
    whole = found(content)
    monkeypatch.setattr(slack, "_AT_ONCE", 64)
    assert found(content) == whole == [(100, 100 + PAGE_SIZE)]
    far = find_residue(image(b"").space(), 0xFFFF_8000_0000_0000, 0xFFFF_8000_0000_0000 + (1 << 16))
    assert [gap.what for gap in far.gaps] == ["executable memory at 0xffff800000000000, 65536 bytes"]


@given(st.lists(st.sampled_from([0x00, 0x90, 0xCC, 0xE8, 0xC3]), min_size=1, max_size=300), st.booleans())
def test_residues_hold_every_odd_byte_and_begin_and_end_with_one(content: list[int], traps: bool) -> None:  # noqa: FBT001 - a case
    odd = {at for at, byte in enumerate(content) if byte not in ({0xCC} if traps else PADDINGS)}
    runs = found(bytes(content), traps_only=traps)
    assert odd == {at for low, high in runs for at in range(low, high)} & odd
    assert all({low, high - 1} <= odd for low, high in runs)
    assert all(later - high >= 16 for (_, high), (later, _) in pairwise(runs))
