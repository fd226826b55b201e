"""The kernel's types: BTF served to drgn.

drgn 0.3 reads DWARF but no BTF. This adapter answers its type finder from one or more BTFs: the kernel's, and those
of modules, which continue the kernel's. A type that one BTF only declares is taken from another that defines it.

Everything comes from the image: members are resolved when they are used, chains are followed a bounded number of
steps, and whatever does not decode raises `DecodeError`.
"""

from collections.abc import Callable

import drgn

from hypervigil.core.errors import DecodeError
from hypervigil.decode.btf import Btf
from hypervigil.decode.btf_types import MODIFIERS, BtfKind, BtfType, Member
from hypervigil.standards.layouts import LayoutSet

_MAX_DEPTH = 64
_MAX_SCALAR = 16
_REFUSALS = (ValueError, OverflowError, TypeError, SyntaxError)
"""What drgn raises when it is asked to make a type that cannot be."""

_KINDS = {
    drgn.TypeKind.STRUCT: (BtfKind.STRUCT,),
    drgn.TypeKind.UNION: (BtfKind.UNION,),
    drgn.TypeKind.TYPEDEF: (BtfKind.TYPEDEF,),
    drgn.TypeKind.ENUM: (BtfKind.ENUM, BtfKind.ENUM64),
    drgn.TypeKind.INT: (BtfKind.INT,),
    drgn.TypeKind.BOOL: (BtfKind.INT,),
}
_INTEGERS = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long"}
_REFERENCES = {BtfKind.PTR, BtfKind.TYPEDEF, BtfKind.ARRAY, *MODIFIERS}


class TypeCatalogue:
    """Types of a program, by name, out of all the BTFs that were added.

    Args:
        program: the program that the types are for; the catalogue becomes its first type finder.
    """

    def __init__(self, program: drgn.Program) -> None:
        self._program = program
        self._sources: list[tuple[str, Btf]] = []
        self._places: list[int | None] = []
        self._made: dict[tuple[int, int], drgn.Type] = {}
        self._layouts: LayoutSet | None = None
        self._laid_out: dict[str, drgn.Type] = {}
        program.register_type_finder("btf", self._find, enable_index=0)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the BTFs, in the order in which they are asked, and of the layouts where any was needed."""
        layouts = (self._layouts.source,) if self._layouts is not None and self._laid_out else ()
        return (*(name for name, _ in self._sources), *layouts)

    def add(self, name: str, btf: Btf, at: int | None = None) -> None:
        """Ask `btf` too, after those that are there; `at` is its virtual address, None if it is not in memory."""
        self._sources.append((name, btf))
        self._places.append(at)

    def record(self, name: str) -> tuple[int, int] | None:
        """Virtual addresses, half-open, of what describes a structure or union; None if that is not in memory."""
        for at, (_, btf) in zip(self._places, self._sources, strict=True):
            for type_id in btf.find(name, BtfKind.STRUCT, BtfKind.UNION):
                if at is not None and (type_id >= btf.first_id or btf.base is None):
                    low, high = btf.record(type_id)
                    return at + low, at + high
        return None

    def fall_back_on(self, layouts: LayoutSet) -> None:
        """Take a type from `layouts` where no BTF defines it."""
        self._layouts = layouts

    def _find(
        self, _program: drgn.Program, kinds: "frozenset[drgn.TypeKind]", name: str, _filename: str | None
    ) -> drgn.Type | None:
        wanted = [kind for asked in kinds for kind in _KINDS.get(asked, ())]
        for index, (_, btf) in enumerate(self._sources):
            for type_id in btf.find(name, *wanted) if wanted else ():
                if type_id >= btf.first_id or btf.base is None:
                    return self._type(index, type_id, 0)
        return self._layout(f"struct {name}") if drgn.TypeKind.STRUCT in kinds else None

    def _type(self, index: int, type_id: int, depth: int) -> drgn.Type:
        made = self._made.get((index, type_id))
        if made is None:
            if depth > _MAX_DEPTH:
                raise DecodeError("btf type", f"type {type_id} refers to itself")
            try:
                made = self._make(index, type_id, depth + 1)
            except _REFUSALS as fault:
                raise DecodeError("btf type", f"type {type_id} cannot be: {fault}") from fault
            self._made[index, type_id] = made
        return made

    def _make(self, index: int, type_id: int, depth: int) -> drgn.Type:
        if type_id == 0:
            return self._program.void_type()
        this = self._sources[index][1].type(type_id)
        if this.kind in {BtfKind.STRUCT, BtfKind.UNION}:
            return self._compound(index, type_id)
        if this.kind in _REFERENCES:
            return self._reference(index, this, depth)
        if this.kind is BtfKind.INT:
            return self._integer(index, type_id)
        return self._leaf(index, this)

    def _reference(self, index: int, this: BtfType, depth: int) -> drgn.Type:
        program = self._program
        if this.kind is BtfKind.ARRAY:
            array = self._sources[index][1].array(this.id)
            return program.array_type(self._type(index, array.element, depth), array.count)
        if this.target is None:
            raise DecodeError("btf type", f"type {this.id} refers to nothing")
        target = self._type(index, this.target, depth)
        if this.kind is BtfKind.PTR:
            return program.pointer_type(target)
        return program.typedef_type(this.name, target) if this.kind is BtfKind.TYPEDEF else target

    def _leaf(self, index: int, this: BtfType) -> drgn.Type:
        program = self._program
        if this.kind is BtfKind.FWD:
            return self._declared(this.name, union=this.flag)
        if this.kind is BtfKind.FUNC_PROTO:
            return program.function_type(program.void_type(), ())
        if this.kind is BtfKind.FLOAT:
            return program.float_type(this.name, _scalar_size(this))
        if this.kind in _KINDS[drgn.TypeKind.ENUM]:
            compatible = program.int_type("int" if this.flag else "unsigned int", _scalar_size(this), this.flag)
            values = [drgn.TypeEnumerator(e.name, e.value) for e in self._sources[index][1].enumerators(this.id)]
            return program.enum_type(this.name or None, compatible, values)
        raise DecodeError("btf type", f"type {this.id} of kind {this.kind.name} is no type of a value")

    def _compound(self, index: int, type_id: int) -> drgn.Type:
        btf = self._sources[index][1]
        this = btf.type(type_id)
        members = [
            drgn.TypeMember(self._member(index, member), member.name or None, member.bit_offset)
            for member in btf.members(type_id)
        ]
        make = self._program.union_type if this.kind is BtfKind.UNION else self._program.struct_type
        return make(this.name or None, this.size or 0, members)

    def _member(self, index: int, member: Member) -> Callable[[], drgn.Type | drgn.Object]:
        def resolve() -> drgn.Type | drgn.Object:
            kind = self._type(index, member.type_id, 0)
            if not member.bit_size:
                return kind
            try:
                return drgn.Object(self._program, kind, bit_field_size=member.bit_size)
            except _REFUSALS as fault:
                raise DecodeError("btf type", f"member {member.name} cannot be: {fault}") from fault

        return resolve

    def _declared(self, name: str, *, union: bool) -> drgn.Type:
        kind = BtfKind.UNION if union else BtfKind.STRUCT
        for index, (_, btf) in enumerate(self._sources):
            for type_id in btf.find(name, kind):
                return self._type(index, type_id, 0)
        laid_out = None if union else self._layout(f"struct {name}")
        if laid_out is not None:
            return laid_out
        return self._program.union_type(name) if union else self._program.struct_type(name)

    def _layout(self, name: str) -> drgn.Type | None:
        layout = None if self._layouts is None else self._layouts.types.get(name)
        if layout is None:
            return None
        if name not in self._laid_out:
            members = [
                drgn.TypeMember(self._spelled(kind), member, 8 * offset) for member, offset, kind in layout.members
            ]
            self._laid_out[name] = self._program.struct_type(name.removeprefix("struct "), layout.size, members)
        return self._laid_out[name]

    def _spelled(self, kind: str) -> Callable[[], drgn.Type]:
        """A member's type as a layout writes it, resolved when it is used."""

        def resolve() -> drgn.Type:
            if kind.endswith("*"):
                void = self._program.void_type()
                target = self._program.function_type(void, ()) if kind == "function *" else void
                return self._program.pointer_type(target)
            if kind.startswith("struct "):
                try:
                    return self._program.type(kind)
                except LookupError:
                    return self._program.struct_type(kind.removeprefix("struct "))
            size = int(kind.partition(" ")[0])
            if size in _INTEGERS:
                return self._program.int_type(_INTEGERS[size], size, is_signed=False)
            return self._program.array_type(self._program.int_type("unsigned char", 1, is_signed=False), size)

        return resolve

    def _integer(self, index: int, type_id: int) -> drgn.Type:
        btf = self._sources[index][1]
        this = btf.type(type_id)
        encoding = btf.integer(type_id)
        size = _scalar_size(this)
        if encoding.boolean:
            return self._program.bool_type(this.name, size)
        return self._program.int_type(this.name, size, encoding.signed)


def _scalar_size(this: BtfType) -> int:
    """Bytes of a number; drgn takes any and fails when a value is read."""
    if this.size is None or not 0 < this.size <= _MAX_SCALAR:
        raise DecodeError("btf type", f"type {this.id}, a number, has {this.size} bytes")
    return this.size
