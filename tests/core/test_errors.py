import pytest

from hypervigil.core import errors
from hypervigil.core.errors import (
    DecodeError,
    EvidenceError,
    HypervigilError,
    MissingMemory,
    ProgramError,
    UnsupportedEvidence,
    UsageError,
)


def test_the_tree_has_three_branches_and_the_module_draws_every_leaf() -> None:
    assert set(HypervigilError.__subclasses__()) == {ProgramError, UsageError, EvidenceError}
    drawn = errors.__doc__ or ""
    for kind in vars(errors).values():
        if isinstance(kind, type):
            assert f"{kind.__name__} " in drawn or kind is HypervigilError


@pytest.mark.parametrize("kind", [UnsupportedEvidence, DecodeError, MissingMemory])
def test_what_the_evidence_lacks_is_an_evidence_error(kind: type[Exception]) -> None:
    assert issubclass(kind, EvidenceError)


def test_a_decode_error_says_what_where_and_why() -> None:
    error = DecodeError("ELF note", "size beyond the segment", 0x40)
    assert str(error) == "ELF note at byte 0x40: size beyond the segment"
    assert (error.what, error.reason, error.offset) == ("ELF note", "size beyond the segment", 0x40)


def test_an_offset_of_zero_is_an_offset_and_none_is_none() -> None:
    assert str(DecodeError("note", "short", 0)) == "note at byte 0x0: short"
    assert str(DecodeError("note", "short")) == "note: short"


@pytest.mark.parametrize(("virtual", "kind"), [(False, "physical"), (True, "virtual")])
def test_missing_memory_says_which_address_of_which_kind(virtual: bool, kind: str) -> None:  # noqa: FBT001 - a parametrized flag
    error = MissingMemory(0x1000, 8, virtual=virtual)
    assert str(error) == f"{kind} 0x1000, 8 bytes: not in the image"
    assert (error.address, error.size, error.why, error.virtual) == (0x1000, 8, "not in the image", virtual)


def test_missing_memory_says_why() -> None:
    assert str(MissingMemory(0, 1, "page not present", virtual=True)) == "virtual 0x0, 1 bytes: page not present"
