from collections.abc import Callable

import drgn
import pytest

from hypervigil.core.errors import DecodeError
from hypervigil.decode.btf import Btf
from hypervigil.memory.types import TypeCatalogue
from hypervigil.standards.layouts import Layout, LayoutSet
from tests.decode.btf_encoder import Encoder
from tests.linux.c_types import CTypes

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, CONST = 1, 2, 3, 4, 5, 6, 7, 8, 10
FUNC, FLOAT, ENUM64 = 12, 16, 19
MEMORY = bytes(range(64))


def program() -> drgn.Program:
    made = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))

    def read(address: int, count: int, _offset: int, _physical: bool) -> bytes:  # noqa: FBT001 - drgn's signature
        return MEMORY[address : address + count]

    made.add_memory_segment(0, len(MEMORY), read, physical=False)
    return made


def catalogue(*sources: Btf) -> tuple[drgn.Program, TypeCatalogue]:
    made = program()
    types = TypeCatalogue(made)
    for index, btf in enumerate(sources):
        types.add(f"BTF {index}", btf)
    return made, types


def encoded(build: Callable[[Encoder], object]) -> Btf:
    encoder = Encoder()
    build(encoder)
    return Btf(encoder.data())


def test_a_structure_is_read_as_a_compiler_laid_it_out() -> None:
    made, _ = catalogue(Btf(CTypes({"inner": "a:u8 b:u16", "outer": "x:u32 in:inner[2] p:ptr name:char[4]"}).btf))
    kind = made.type("struct outer")
    assert (kind.size, drgn.offsetof(kind, "in"), drgn.offsetof(kind, "p"), drgn.sizeof(kind)) == (32, 4, 16, 32)
    thing = drgn.Object(made, kind, address=0)
    assert thing.x.value_() == 0x03020100
    assert thing.member_("in")[1].b.value_() == 0x0B0A
    assert thing.p.value_() == 0x1716151413121110
    assert thing.name.to_bytes_() == bytes(range(24, 28))


def test_a_bit_field_is_its_bits() -> None:
    def build(btf: Encoder) -> None:
        integer = btf.add("unsigned int", INT, 4, 32)
        btf.items("flags", STRUCT, 4, ("low", integer, 4 << 24), ("high", integer, 12 << 24 | 4), flag=True)

    made, _ = catalogue(encoded(build))
    thing = drgn.Object(made, made.type("struct flags"), address=1)  # 01 02 03 04
    assert (thing.low.value_(), thing.high.value_()) == (1, 0x020)


def test_a_signed_integer_a_bool_an_enumeration_and_a_float_keep_their_kind() -> None:
    def build(btf: Encoder) -> None:
        btf.add("short", INT, 2, 1 << 24 | 16)
        btf.add("_Bool", INT, 1, 4 << 24 | 8)
        btf.items("state", ENUM, 4, ("DEAD", -1 & 0xFFFFFFFF), ("LIVE", 1), flag=True)
        btf.items("wide", ENUM64, 8, ("HUGE", 0, 1))
        btf.add("double", FLOAT, 8)
        btf.items("holder", UNION, 8, ("f", 5, 0), ("e", 3, 0))

    made, _ = catalogue(encoded(build))
    assert made.type("short").is_signed
    assert made.type("_Bool").kind is drgn.TypeKind.BOOL
    assert [(e.name, e.value) for e in made.type("enum state").enumerators] == [("DEAD", -1), ("LIVE", 1)]
    assert made.type("enum wide").enumerators[0].value == 1 << 32
    holder = made.type("union holder")
    assert (holder.size, holder.member("f").type.kind) == (8, drgn.TypeKind.FLOAT)


def test_a_typedef_keeps_its_name_and_qualifiers_are_dropped() -> None:
    def build(btf: Encoder) -> None:
        btf.add("unsigned long", INT, 8, 64)
        btf.add("", CONST, 1)
        btf.add("size_t", TYPEDEF, 2)

    made, _ = catalogue(encoded(build))
    kind = made.type("size_t")
    assert (kind.kind, kind.type.kind, kind.type.name) == (drgn.TypeKind.TYPEDEF, drgn.TypeKind.INT, "unsigned long")


def test_what_one_source_declares_another_defines() -> None:
    base = CTypes({"holder": "device:*kvm_io_device other:*nowhere"})
    module = CTypes({"kvm_io_device": "ops:ptr"}, base)
    kernel = Btf(base.btf)
    made, _ = catalogue(kernel, Btf(module.btf, kernel))
    pointed = made.type("struct holder").member("device").type.type
    assert (pointed.tag, pointed.size) == ("kvm_io_device", 8)
    unknown = made.type("struct holder").member("other").type.type
    assert (unknown.tag, unknown.is_complete()) == ("nowhere", False)


def test_a_declaration_alone_is_no_type() -> None:
    made, _ = catalogue(Btf(CTypes({"holder": "device:*kvm_io_device"}).btf))
    with pytest.raises(LookupError):
        made.type("struct kvm_io_device")


def test_the_first_source_wins() -> None:
    made, types = catalogue(Btf(CTypes({"a": "x:u32"}).btf), Btf(CTypes({"a": "x:u64"}).btf))
    assert made.type("struct a").size == 4
    assert types.sources == ("BTF 0", "BTF 1")


def test_the_kind_of_a_name_counts() -> None:
    made, _ = catalogue(Btf(CTypes({"thing": "x:u32"}).btf))
    for spelled in ("union thing", "enum thing", "thing"):
        with pytest.raises(LookupError):
            made.type(spelled)


@pytest.mark.parametrize("kind", [TYPEDEF, CONST, PTR])
def test_a_type_that_refers_to_itself_is_refused(kind: int) -> None:
    def build(btf: Encoder) -> None:
        btf.add("loop" if kind == TYPEDEF else "", kind, 1)
        btf.items("holder", STRUCT, 8, ("x", 1, 0))

    made, _ = catalogue(encoded(build))
    with pytest.raises(DecodeError, match="refers to itself"):
        made.type("struct holder").member("x").type.type_name()


def test_an_array_of_itself_is_refused() -> None:
    def build(btf: Encoder) -> None:
        btf.add("", ARRAY, 0, 1, 1, 2)
        btf.items("holder", STRUCT, 8, ("x", 1, 0))

    made, _ = catalogue(encoded(build))
    with pytest.raises(DecodeError, match="refers to itself"):
        made.type("struct holder").member("x").type.type_name()


def test_a_structure_may_hold_a_pointer_to_itself() -> None:
    made, _ = catalogue(Btf(CTypes({"node": "next:*node"}).btf))
    node = made.type("struct node")
    assert node.member("next").type.type.member("next").type.type.tag == "node"


@pytest.mark.parametrize(("kind", "third"), [(TYPEDEF, 99), (FUNC, 0)])
def test_what_is_no_type_of_a_value_is_refused_when_it_is_used(kind: int, third: int) -> None:
    def build(btf: Encoder) -> None:
        btf.add("odd", kind, third)
        btf.items("holder", STRUCT, 8, ("x", 1, 0))

    made, _ = catalogue(encoded(build))
    holder = made.type("struct holder")
    with pytest.raises(DecodeError):
        holder.member("x").type.type_name()


LAYOUTS = LayoutSet(
    "layouts of a test",
    {
        "struct hidden": Layout(
            40,
            (
                ("func", 0, "function *"),
                ("data", 8, "void *"),
                ("known", 16, "struct known"),
                ("other", 20, "struct unknown"),
                ("count", 24, "4 bytes"),
                ("raw", 28, "12 bytes"),
            ),
        ),
        "struct known": Layout(99, ()),
    },
)


def test_a_layout_stands_in_only_where_no_source_has_the_type() -> None:
    made, types = catalogue(Btf(CTypes({"known": "x:u32"}).btf))
    types.fall_back_on(LAYOUTS)
    assert made.type("struct known").size == 4
    assert list(types.sources) == ["BTF 0"]
    hidden = made.type("struct hidden")
    assert list(types.sources) == ["BTF 0", "layouts of a test"]
    assert hidden.member("func").type.type.kind is drgn.TypeKind.FUNCTION
    assert hidden.member("data").type.type.kind is drgn.TypeKind.VOID
    assert hidden.member("known").type.size == 4
    assert not hidden.member("other").type.is_complete()
    assert drgn.Object(made, hidden, address=0).count.value_() == 0x1B1A1918
    assert hidden.member("raw").type.length == 12


def test_a_pointer_to_a_declared_structure_leads_to_its_layout() -> None:
    made, types = catalogue(Btf(CTypes({"holder": "inner:*hidden"}).btf))
    types.fall_back_on(LAYOUTS)
    assert made.type("struct holder").member("inner").type.type.size == 40


def test_without_layouts_nothing_stands_in() -> None:
    made, _ = catalogue()
    with pytest.raises(LookupError):
        made.type("struct hidden")


@pytest.mark.parametrize(
    "what",
    [
        (INT, 1 << 24, 1 << 27),
        (INT, 0, 32),
        (FLOAT, 1 << 31),
        (ENUM, 1 << 30),
    ],
)
def test_a_type_of_an_impossible_size_is_a_decode_error(what: tuple[int, ...]) -> None:
    def build(btf: Encoder) -> None:
        odd = btf.add("odd", *what)
        btf.items("holder", STRUCT, 8, ("it", odd, 0))

    made, _ = catalogue(encoded(build))
    with pytest.raises(DecodeError):
        drgn.Object(made, made.type("struct holder"), address=0).it.value_()


def test_a_bit_field_of_something_without_bits_is_a_decode_error() -> None:
    def build(btf: Encoder) -> None:
        integer = btf.add("int", INT, 4, 32)
        whole = btf.items("whole", STRUCT, 4, ("it", integer, 0))
        btf.items("holder", STRUCT, 8, ("bits", whole, 3 << 24), flag=True)

    made, _ = catalogue(encoded(build))
    with pytest.raises(DecodeError, match="member bits cannot be"):
        _ = made.type("struct holder").members[0].type
