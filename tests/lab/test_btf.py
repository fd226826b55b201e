import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import UsageError
from hypervigil.lab.btf import Btf, Member

STRUCT, INT, UNION, FWD = 4, 1, 5, 7


def btf(types: bytes, text: bytes) -> bytes:
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(text)) + types + text


def kind(name: int, which: int, count: int, size: int, rest: bytes, *, flag: bool = False) -> bytes:
    return struct.pack("<III", name, which << 24 | count | flag << 31, size) + rest


def members(*triples: tuple[int, int, int]) -> bytes:
    return b"".join(struct.pack("<III", *triple) for triple in triples)


TEXT = b"\0int\0outer\0first\0inner\0deep\0hidden\0"
NAMES = {
    name: TEXT.index(b"\0" + name.encode() + b"\0") + 1 for name in ("int", "outer", "first", "inner", "deep", "hidden")
}
BASE = btf(
    kind(NAMES["int"], INT, 0, 4, bytes(4))
    + kind(NAMES["inner"], STRUCT, 1, 8, members((NAMES["deep"], 1, 32)))
    + kind(0, UNION, 1, 4, members((NAMES["hidden"], 1, 0)))
    + kind(NAMES["outer"], FWD, 0, 0, b"")
    + kind(
        NAMES["outer"],
        STRUCT,
        3,
        24,
        members((NAMES["first"], 1, 0), (NAMES["inner"], 2, 64 | 3 << 24), (0, 3, 128)),
        flag=True,
    ),
    TEXT,
)


def test_members_are_found_through_named_and_nameless_ones() -> None:
    whole = Btf(BASE)
    assert whole.size("outer") == 24
    assert whole.member("outer", "first").offset == 0
    assert whole.member("outer", "inner").offset == 8
    assert whole.member("outer", "inner.deep").offset == 12
    assert whole.member("outer", "hidden").offset == 16


def test_the_place_of_the_offset_in_the_description_is_told() -> None:
    member = Btf(BASE).member("inner", "deep")
    assert member == Member(4, member.record)
    assert struct.unpack_from("<I", BASE, member.record) == (32,)


def test_a_module_builds_on_the_kernel() -> None:
    text = b"own\0"
    first_text = len(TEXT)
    module = btf(kind(first_text, STRUCT, 1, 40, members((NAMES["inner"], 2, 256))), text)
    assert Btf(module, Btf(BASE)).member("own", "inner.deep").offset == 36
    assert Btf(module, Btf(BASE)).member("outer", "inner.deep").offset == 12


@pytest.mark.parametrize(("structure", "path"), [("none", "x"), ("outer", "none"), ("outer", "first.x")])
def test_what_is_not_described_is_told(structure: str, path: str) -> None:
    with pytest.raises(UsageError, match="has no"):
        Btf(BASE).member(structure, path)


def test_a_kernel_without_a_description_is_told() -> None:
    with pytest.raises(UsageError, match="offers no BTF"):
        Btf(b"cat: can't open")
    with pytest.raises(UsageError, match="no struct none"):
        Btf(BASE).size("none")


@given(st.binary(max_size=200))
def test_any_bytes_end(data: bytes) -> None:
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(data) // 2, len(data) // 2, len(data))
    with pytest.raises(UsageError, match="has no"):
        Btf(head + data).member("s", "m")
