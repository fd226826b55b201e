import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError
from hypervigil.decode.btf import Btf
from hypervigil.decode.btf_types import Array, BtfKind, BtfType, Enumerator, Integer, Member, Parameter, Variable
from tests.decode.btf_encoder import Encoder

SIGNED_INT = 1 << 24 | 32


@pytest.fixture
def kernel() -> Encoder:
    made = Encoder()
    made.add("int", BtfKind.INT, 4, SIGNED_INT)  # 1
    made.add("", BtfKind.PTR, 6)  # 2
    made.items("list_head", BtfKind.STRUCT, 16, ("next", 2, 0), ("prev", 2, 64))  # 3
    made.add("", BtfKind.ARRAY, 0, 1, 1, 10)  # 4
    made.items("flags", BtfKind.STRUCT, 44, ("low", 1, 3 << 24), ("high", 1, 5 << 24 | 3), ("tail", 4, 32), flag=True)
    made.add("", BtfKind.CONST, 3)  # 6
    made.add("list_t", BtfKind.TYPEDEF, 6)  # 7
    made.add("kvm_io_device", BtfKind.FWD, 0)  # 8
    return made


def test_a_struct_is_found_with_its_members(kernel: Encoder) -> None:
    btf = Btf(kernel.data())
    assert btf.find("list_head", BtfKind.STRUCT) == (3,)
    assert btf.type(3) == BtfType(3, BtfKind.STRUCT, "list_head", 16, None, 2, flag=False)
    assert btf.members(3) == (Member("next", 2, 0, 0), Member("prev", 2, 64, 0))
    assert btf.size_of(3) == 16


def test_kind_and_whole_name_must_match(kernel: Encoder) -> None:
    btf = Btf(kernel.data())
    assert btf.find("list_head", BtfKind.UNION) == ()
    assert btf.find("list_head") == (3,)
    assert btf.find("head") == ()
    assert btf.find("list_t") == (7,)


def test_bitfields_have_width_and_offset(kernel: Encoder) -> None:
    members = Btf(kernel.data()).members(5)
    assert [(m.name, m.bit_offset, m.bit_size) for m in members] == [("low", 0, 3), ("high", 3, 5), ("tail", 32, 0)]


def test_typedefs_and_qualifiers_are_stripped_and_arrays_measured(kernel: Encoder) -> None:
    btf = Btf(kernel.data())
    assert btf.strip(7) == 3
    assert btf.size_of(7) == 16
    assert btf.array(4) == Array(1, 1, 10)
    assert btf.size_of(4) == 40
    assert btf.size_of(2) == 8
    assert btf.integer(1) == Integer(signed=True, char=False, boolean=False, bit_offset=0, bits=32)


def test_a_forward_declaration_has_no_size(kernel: Encoder) -> None:
    with pytest.raises(DecodeError, match="FWD 'kvm_io_device' has no size"):
        Btf(kernel.data()).size_of(8)


def test_enums_are_signed_by_the_flag() -> None:
    made = Encoder()
    made.items("state", BtfKind.ENUM, 4, ("OFF", 0xFFFFFFFF), ("ON", 1), flag=True)
    made.items("bits", BtfKind.ENUM, 4, ("ALL", 0xFFFFFFFF))
    made.items("wide", BtfKind.ENUM64, 8, ("TOP", 1, 0x80000000))
    made.items("negative", BtfKind.ENUM64, 8, ("LOW", 0xFFFFFFFE, 0xFFFFFFFF), flag=True)
    btf = Btf(made.data())
    assert btf.enumerators(1) == (Enumerator("OFF", -1), Enumerator("ON", 1))
    assert btf.enumerators(2) == (Enumerator("ALL", 0xFFFFFFFF),)
    assert btf.enumerators(3) == (Enumerator("TOP", 1 << 63 | 1),)
    assert btf.enumerators(4) == (Enumerator("LOW", -2),)


def test_functions_variables_and_tags() -> None:
    made = Encoder()
    made.add("int", BtfKind.INT, 4, SIGNED_INT)
    made.items("", BtfKind.FUNC_PROTO, 1, ("vcpu", 1), ("", 0))
    made.add("kvm_run", BtfKind.FUNC, 2, count=1)
    made.add("vm_count", BtfKind.VAR, 1, 1)
    made.add(".data..percpu", BtfKind.DATASEC, 64, 4, 8, 4, count=1)
    made.add("bpf_kfunc", BtfKind.DECL_TAG, 3, -1)
    made.add("double", BtfKind.FLOAT, 8)
    made.add("rcu", BtfKind.TYPE_TAG, 1)
    btf = Btf(made.data())
    assert btf.parameters(2) == (Parameter("vcpu", 1), Parameter("", 0))
    assert (btf.type(3).target, btf.type(3).count) == (2, 1)
    assert btf.variables(5) == (Variable(4, 8, 4),)
    assert (btf.tail_word(4), btf.tail_word(6)) == (1, -1)
    assert btf.size_of(7) == 8
    assert btf.strip(8) == 1
    assert list(btf.each_id(BtfKind.FUNC)) == [3]


def test_a_module_continues_the_ids_and_strings_of_its_base(kernel: Encoder) -> None:
    base = Btf(kernel.data())
    made = Encoder(base.end_id, base.string_end)
    made.items("kvm_io_device", BtfKind.STRUCT, 8, ("list", 3, 0))
    made.add("", BtfKind.PTR, 9)
    split = Btf(made.data(), base)
    assert split.find("kvm_io_device", BtfKind.STRUCT) == (9,)
    assert split.find("kvm_io_device", BtfKind.STRUCT, BtfKind.FWD) == (8, 9)
    assert split.find("list_head") == (3,)
    assert split.type(3).name == "list_head"
    assert split.members(9) == (Member("list", 3, 0, 0),)
    assert base.end_id == 9
    with pytest.raises(DecodeError, match="no type 9"):
        base.type(9)


def test_a_split_type_may_use_a_name_of_its_base(kernel: Encoder) -> None:
    base = Btf(kernel.data())
    made = Encoder(base.end_id, base.string_end)
    made.types += struct.pack("<III", kernel.strings.index(b"list_t"), BtfKind.TYPEDEF << 24, 1)
    made.strings = b"x\0"
    assert Btf(made.data(), base).find("list_t") == (7, 9)


@pytest.mark.parametrize("target", [1, 2])
def test_endless_chains_are_refused(target: int) -> None:
    made = Encoder()
    made.add("a", BtfKind.TYPEDEF, target)
    made.add("b", BtfKind.CONST, 1)
    made.add("", BtfKind.ARRAY, 0, 3, 3, 2)
    btf = Btf(made.data())
    with pytest.raises(DecodeError, match="endless"):
        btf.strip(1)
    with pytest.raises(DecodeError, match="endless"):
        btf.size_of(3)


def test_an_unknown_kind_is_named(kernel: Encoder) -> None:
    kernel.add("", 22, 0, 1, 2)
    with pytest.raises(DecodeError, match="type 9 is of the unknown kind 22"):
        Btf(kernel.data())


def test_a_layout_steps_over_unknown_kinds(kernel: Encoder) -> None:
    kernel.add("", 22, 0, 7, 1, 2, 3, 4, count=2)
    after = kernel.add("long", BtfKind.INT, 8, SIGNED_INT)
    kernel.layout = bytes(4 * 22) + bytes([4, 8, 0, 0])
    btf = Btf(kernel.data())
    assert btf.find("long") == (after,)
    with pytest.raises(DecodeError, match="unknown kind 22"):
        btf.type(9)


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0, b"\xeb\x9f", "big-endian"),
        (0, b"\0\0", "magic"),
        (2, b"\2", "version 2"),
        (3, b"\1", "flags 0x1"),
        (4, b"\4\0\0\0", "header of 4 bytes"),
        (8, b"\2\0\0\0", "not aligned"),
        (12, b"\xff\xff\xff\xff", "past the end"),
        (20, b"\x01\0\0\0", "end with a NUL"),
    ],
)
def test_a_bad_header_is_refused_by_name(kernel: Encoder, offset: int, value: bytes, reason: str) -> None:
    data = bytearray(kernel.data())
    data[offset : offset + len(value)] = value
    if offset == 20:
        data[data.index(b"int\0") - 1] = 0x41
    with pytest.raises(DecodeError, match=reason):
        Btf(bytes(data))


def test_a_record_that_is_cut_off_is_refused(kernel: Encoder) -> None:
    kernel.types = kernel.types[:-4]
    with pytest.raises(DecodeError, match="cut off"):
        Btf(kernel.data())


def test_asking_for_the_wrong_thing_says_what_is_there(kernel: Encoder) -> None:
    btf = Btf(kernel.data())
    with pytest.raises(DecodeError, match="type 1 is a INT, not a STRUCT or UNION"):
        btf.members(1)
    with pytest.raises(DecodeError, match="no type 0"):
        btf.type(0)
    with pytest.raises(DecodeError, match="outside of the strings"):
        btf.string(1 << 20)


def _visit(btf: Btf, type_id: int) -> None:
    this = btf.type(type_id)
    asked = (btf.members, btf.enumerators, btf.parameters, btf.variables, btf.array, btf.integer)
    for question in (*asked, btf.strip, btf.size_of):
        with contextlib.suppress(DecodeError):
            question(type_id)
    assert type_id in btf.find(this.name)


@given(st.data())
def test_damaged_types_give_values_or_reasons(data: st.DataObject) -> None:
    made = Encoder()
    made.add("int", BtfKind.INT, 4, SIGNED_INT)
    made.items("s", BtfKind.STRUCT, 16, ("a", 1, 0), ("b", 3, 64))
    made.add("", BtfKind.ARRAY, 0, 2, 1, 3)
    made.items("e", BtfKind.ENUM, 4, ("A", 1), ("B", 2))
    raw = bytearray(made.data())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DecodeError):
        btf = Btf(bytes(raw))
        assert btf.end_id <= 1 + len(raw) // 12
        for type_id in range(btf.first_id, btf.end_id):
            _visit(btf, type_id)


@given(st.binary(max_size=200))
def test_any_bytes_behind_a_header_decode_or_not(tail: bytes) -> None:
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(tail) // 4 * 4, 0, len(tail))
    try:
        btf = Btf(header + tail)
    except DecodeError:
        return
    assert btf.end_id <= 1 + len(tail) // 12
