import capstone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.lab.encoding import movable, same_meaning


@pytest.mark.parametrize(
    ("code", "moved"),
    [
        ("554889e541574156", "554889e54157"),  # push; mov; push r15
        ("0f1f440000c3", "0f1f440000"),
        ("488b0512345678c3", None),  # relative to the instruction
        ("55eb10909090", None),
        ("55c3909090", None),
        ("4889", None),
    ],
)
def test_only_whole_instructions_that_mean_the_same_elsewhere_are_moved(code: str, moved: str | None) -> None:
    result = movable(bytes.fromhex(code))
    assert (result and result.hex()) == moved


def test_a_move_between_registers_is_written_the_other_way() -> None:
    assert same_meaning(bytes.fromhex("554889e5"), 0) == (1, bytes.fromhex("488bec"))
    assert same_meaning(bytes.fromhex("4889e54d89f8"), 3) == (3, bytes.fromhex("4d8bc7"))
    assert same_meaning(bytes.fromhex("55488b4508c3"), 0) is None  # loads from memory


def text_of(code: bytes) -> str:
    (found,) = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm_lite(code, 0)
    return f"{found[2]} {found[3]}"


@given(st.sampled_from([0x48, 0x49, 0x4C, 0x4D]), st.sampled_from([0x89, 0x8B]), st.integers(0xC0, 0xFF))
def test_the_other_encoding_is_the_same_instruction(rex: int, opcode: int, operands: int) -> None:
    old = bytes([rex, opcode, operands])
    found = same_meaning(old, 0)
    assert found is not None
    assert found[1] != old
    assert text_of(found[1]) == text_of(old)
