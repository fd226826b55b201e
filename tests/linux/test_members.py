from collections.abc import Callable

import drgn
import pytest

from hypervigil.core.errors import EvidenceError, MissingDescription, MissingMemory
from hypervigil.linux.members import address_of, element, has, length, member, number, offset_of, text
from tests.linux.c_types import words

AT = 0x1000
LAST = (1 << 64) - 1


class World:
    """A program with a structure of everything that may stand in one, and the memory of one of it at 0x1000."""

    def __init__(self) -> None:
        self.data = bytearray(words(-1, 7, AT, 0) + b"name\0\xffrest\0\0\0\0\0\0\0" + bytes(64))
        self.program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
        self.program.add_memory_segment(0, LAST, self._read, physical=False)
        make = self.program
        self.u64 = make.int_type("unsigned long", 8, is_signed=False)
        self.char = make.int_type("char", 1, is_signed=True)
        inner = make.struct_type("inner", 8, (drgn.TypeMember(self.u64, "number"),))
        named = make.typedef_type("inner_t", make.typedef_type("inner_tt", inner))
        rows = (
            (make.int_type("long", 8, is_signed=True), "negative"),
            (named, "inner"),
            (make.pointer_type(inner), "pointer"),
            (make.typedef_type("state_t", make.enum_type("state", self.u64, (drgn.TypeEnumerator("A", 0),))), "state"),
            (make.array_type(self.char, 16), "name"),
            (make.array_type(self.u64, 3), "table"),
            (make.array_type(self.char, 1 << 40), "endless"),
            (make.void_type(), "nothing"),
        )
        members, at = [], 0
        for kind, name in rows:
            members.append(drgn.TypeMember(kind, name, 8 * at))
            at += 16 if name == "name" else 24 if name == "table" else 8
        members.append(drgn.TypeMember(inner, "crooked", 3))
        self.kind = make.struct_type("thing", len(self.data), members)

    def _read(self, address: int, count: int, _offset: int, _physical: bool) -> bytes:  # noqa: FBT001 - drgn's
        at = address - AT
        if not 0 <= at <= at + count <= len(self.data):
            raise MissingMemory(address, count, virtual=True)
        return bytes(self.data[at : at + count])

    def thing(self, address: int = AT) -> drgn.Object:
        return drgn.Object(self.program, self.kind, address=address)


WORLD = World()
THING = WORLD.thing()


@pytest.mark.parametrize(
    ("path", "value"),
    [("negative", LAST), ("inner.number", 7), ("pointer", AT), ("pointer.number", LAST), ("state", 0)],
)
def test_a_number_is_unsigned_and_a_path_goes_through_members_and_pointers(path: str, value: int) -> None:
    assert number(THING, path) == value


def test_the_first_name_that_is_there_is_taken() -> None:
    assert number(THING, "counter.value", "inner.number", "negative") == 7
    assert number(member(THING, "none", "state")) == 0


def test_text_ends_at_its_nul_and_loses_no_byte() -> None:
    assert text(THING, "none", "name") == "name"
    other = World()
    other.data[36] = 0xE9
    assert text(other.thing(), "name") == "name\xe9\xffrest"


def test_an_array_has_elements_and_a_length() -> None:
    assert length(member(THING, "table")) == 3
    assert [number(element(member(THING, "name"), index)) for index in range(5)] == [*b"name", 0]
    assert address_of(element(member(THING, "table"), 2)) == address_of(THING, "table") + 16
    assert number(element(member(THING, "pointer"), 1), "number") == 7


def test_addresses_and_offsets_are_in_bytes() -> None:
    assert address_of(THING) == AT
    assert address_of(THING, "inner") == AT + 8
    assert (offset_of(WORLD.kind, "table"), offset_of(WORLD.kind, "table[2]")) == (48, 64)


def test_members_are_probed_for_by_path() -> None:
    assert has(THING, "inner.number")
    assert has(WORLD.kind, "pointer")
    assert not has(THING, "inner.none")
    assert not has(WORLD.kind, "pointer.number")  # a path of types ends at a pointer
    assert not has(WORLD.u64, "number")


@pytest.mark.parametrize(
    "ask",
    [
        lambda: number(THING, "none"),
        lambda: number(THING, "none.number", "other"),
        lambda: number(THING, "inner"),
        lambda: number(THING, "table"),
        lambda: number(THING, "nothing"),
        lambda: number(THING, "crooked.number"),
        lambda: text(THING, "none"),
        lambda: text(THING, "endless"),
        lambda: text(THING, "nothing"),
        lambda: length(THING),
        lambda: length(member(THING, "pointer")),
        lambda: element(THING, 0),
        lambda: element(member(THING, "negative"), 0),
        lambda: address_of(THING, "none"),
        lambda: address_of(drgn.Object(WORLD.program, WORLD.u64, value=3)),
        lambda: offset_of(WORLD.kind, "none"),
        lambda: offset_of(WORLD.kind, "table["),
        lambda: offset_of(WORLD.u64, "none"),
    ],
)
def test_what_types_do_not_describe_is_said(ask: Callable[[], object]) -> None:
    with pytest.raises(MissingDescription):
        ask()


@pytest.mark.parametrize("address", [AT + (1 << 20), LAST, LAST - 3, 0])
def test_what_is_not_in_memory_is_said(address: int) -> None:
    thing = WORLD.thing(address)
    for ask in (number, text):
        for name in ("negative", "name"):
            with pytest.raises(EvidenceError):
                ask(thing, name)
    for path in ("pointer.number", "inner.number"):
        with pytest.raises(MissingMemory):
            number(thing, path)
    with pytest.raises(MissingMemory):
        element(member(thing, "pointer"), 0)
