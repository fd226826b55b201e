import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError
from hypervigil.core.units import VirtAddr
from hypervigil.lab.truth import Change, Planted, Truth, decode_truth, encode_truth

ADDRESS = VirtAddr(0xFFFF_FFFF_C0A1_B2C0)


def truth(planted: Planted | None) -> Truth:
    return Truth("s", "t", "tampering", ("KVM-001",), "6.1", {"p": "1"}, "quiet", "7.2", 256, planted,
                 {"_text": ADDRESS}, {"vm1": {"io": 3}}, "2026-01-01T00:00:00+00:00")  # fmt: skip


def test_addresses_are_text_in_json() -> None:
    planted = Planted((Change("x", ADDRESS, "00", "c3"),), ADDRESS, {"original": ADDRESS})
    tree = json.loads(encode_truth(truth(planted)))
    assert tree["planted"]["changes"][0]["address"] == "0xffffffffc0a1b2c0"
    assert tree["planted"]["stub"] == "0xffffffffc0a1b2c0"
    assert tree["planted"]["values"] == {"original": "0xffffffffc0a1b2c0"}
    assert tree["anchors"] == {"_text": "0xffffffffc0a1b2c0"}
    assert tree["nested"] == {"vm1": {"io": 3}}


@given(st.none() | st.builds(Planted, st.lists(st.builds(Change)).map(tuple), st.none() | st.integers(0, 1 << 64)))
def test_what_is_written_is_read(planted: Planted | None) -> None:
    assert decode_truth(encode_truth(truth(planted))) == truth(planted)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"anchors": {"_text": "none"}}', b'{"anchors": 3}'])
def test_something_else_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_truth(data)


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_truth(data)
