import pytest

from hypervigil.decode.btf_types import COMPOUND, ENUMS, MODIFIERS, SIZED, BtfKind

KERNEL = (
    "INT PTR ARRAY STRUCT UNION ENUM FWD TYPEDEF VOLATILE CONST RESTRICT FUNC FUNC_PROTO VAR DATASEC FLOAT DECL_TAG "
    "TYPE_TAG ENUM64"
)
"""The kinds in the order of include/uapi/linux/btf.h, from 1 on."""


def test_kinds_have_the_kernel_s_numbers() -> None:
    assert {kind.name: kind.value for kind in BtfKind} == {n: at for at, n in enumerate(KERNEL.split(), start=1)}


@pytest.mark.parametrize("number", [0, 20, 31])
def test_other_numbers_are_no_kinds(number: int) -> None:
    with pytest.raises(ValueError, match="is not a valid BtfKind"):
        BtfKind(number)


def test_what_has_a_size_refers_to_nothing_and_the_reverse() -> None:
    without = {BtfKind.PTR, BtfKind.FUNC, BtfKind.FUNC_PROTO, BtfKind.VAR, BtfKind.DECL_TAG}
    assert SIZED | MODIFIERS | without | {BtfKind.ARRAY, BtfKind.FWD} == set(BtfKind)
    assert not SIZED & (MODIFIERS | without)
    assert COMPOUND | ENUMS < SIZED
