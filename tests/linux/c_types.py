"""Structures as a C compiler lays them out, from a line of text each, and the BTF that describes them.

A member is written ``name:form``; a form is ``u8 u16 u32 u64 i32 char``, ``ptr`` (to void), ``fn`` (to a function),
``NAME`` (a structure in place), ``*NAME`` (a pointer to one), each with ``[N]`` behind it for an array.
"""

import struct
from collections.abc import Mapping
from typing import NamedTuple

from tests.decode.btf_encoder import Encoder

_INTEGERS = {
    "u8": ("unsigned char", 1, False),
    "u16": ("unsigned short", 2, False),
    "u32": ("unsigned int", 4, False),
    "u64": ("unsigned long", 8, False),
    "i32": ("int", 4, True),
    "char": ("char", 1, True),
}
_INT, _PTR, _ARRAY, _STRUCT, _FWD, _FUNC_PROTO = 1, 2, 3, 4, 7, 13
_PROTOTYPE = "prototype"


class Member(NamedTuple):
    """A member's form and place in its structure, in bytes."""

    form: str
    offset: int


class CTypes:
    """Structures by name; those of `base` are known as well.

    Args:
        texts: ``{name: "member:form member:form"}``.
        base: what these continue, as a module's types continue the kernel's.
    """

    def __init__(self, texts: Mapping[str, str], base: "CTypes | None" = None) -> None:
        self.base = base
        self._members: dict[str, dict[str, Member]] = {}
        self._sizes: dict[str, tuple[int, int]] = {} if base is None else dict(base._sizes)
        self._all: dict[str, dict[str, Member]] = {} if base is None else dict(base._all)
        waiting = dict(texts)
        while waiting:
            ready = [n for n, text in waiting.items() if all(self._known(form) for _, form in _split(text))]
            assert ready, f"unknown structures in {sorted(waiting)}"
            for name in ready:
                self._lay_out(name, waiting.pop(name))
        self._ids: dict[str, int] = {} if base is None else dict(base._ids)
        self._next: int = 1 if base is None else base._next
        self._strings: int = 0 if base is None else base._strings
        self.btf = self._encode()

    def _known(self, form: str) -> bool:
        bare = form.partition("[")[0]
        return bare.startswith("*") or bare in {"ptr", "fn", *_INTEGERS} or bare in self._sizes

    def _lay_out(self, name: str, text: str) -> None:
        end, widest = 0, 1
        members = {}
        for member, form in _split(text):
            size, alignment = self.measure(form)
            end += -end % alignment
            members[member] = Member(form, end)
            end, widest = end + size, max(widest, alignment)
        self._members[name] = self._all[name] = members
        self._sizes[name] = (end + -end % widest, widest)

    def measure(self, form: str) -> tuple[int, int]:
        """Size and alignment of a form."""
        bare, _, count = form.partition("[")
        if bare.startswith("*") or bare in {"ptr", "fn"}:
            size, alignment = 8, 8
        elif bare in _INTEGERS:
            size = alignment = _INTEGERS[bare][1]
        else:
            size, alignment = self._sizes[bare]
        return size * int(count.rstrip("]")) if count else size, alignment

    def size(self, name: str) -> int:
        """Bytes of a structure."""
        return self._sizes[name][0]

    def place(self, name: str, path: str) -> Member:
        """Form and offset of a member by its path, such as ``mem[2].base``."""
        form, offset = name, 0
        for part in path.split("."):
            bare, _, index = part.partition("[")
            member = self._all[form][bare]
            form, offset = member.form, offset + member.offset
            if index:
                form = form.partition("[")[0]
                offset += int(index.rstrip("]")) * self.measure(form)[0]
        return Member(form, offset)

    def offset(self, name: str, path: str) -> int:
        """Byte offset of a member by its path."""
        return self.place(name, path).offset

    def encode(self, name: str, path: str, value: int | bytes) -> tuple[int, bytes]:
        """Offset and bytes of a value in a member."""
        form, offset = self.place(name, path)
        size = self.measure(form)[0]
        if isinstance(value, bytes):
            assert len(value) <= size
            return offset, value.ljust(size, b"\0")
        return offset, (value % (1 << 8 * size)).to_bytes(size, "little")

    def _encode(self) -> bytes:
        keys: dict[str, None] = {}
        for name in self._members:
            keys[name] = None
            for member in self._members[name].values():
                keys |= dict.fromkeys(_needed(member.form))
        new = [key for key in keys if key in self._members or key not in self._ids]
        self._ids |= {key: self._next + index for index, key in enumerate(new)}
        encoder = Encoder(self._next, self._strings)
        for key in new:
            self._record(encoder, key)
        self._next, self._strings = encoder.next_id, self._strings + len(encoder.strings)
        return encoder.data()

    def _record(self, encoder: Encoder, key: str) -> None:
        bare, _, count = key.partition("[")
        if count:
            encoder.add("", _ARRAY, 0, self._ids[bare], self._ids["u64"], int(count.rstrip("]")))
        elif key in _INTEGERS:
            name, size, signed = _INTEGERS[key]
            encoder.add(name, _INT, size, signed << 24 | 8 * size)
        elif key == _PROTOTYPE:
            encoder.add("", _FUNC_PROTO, 0)
        elif key == "ptr":
            encoder.add("", _PTR, 0)
        elif key == "fn":
            encoder.add("", _PTR, self._ids[_PROTOTYPE])
        elif key.startswith("*"):
            encoder.add("", _PTR, self._ids[key[1:]])
        elif key in self._members:
            rows = [(n, self._ids[m.form], 8 * m.offset) for n, m in self._members[key].items()]
            encoder.items(key, _STRUCT, self._sizes[key][0], *rows)
        else:
            encoder.add(key, _FWD, 0)


def _split(text: str) -> list[tuple[str, str]]:
    return [(name, form) for name, _, form in (part.partition(":") for part in text.split())]


def _needed(form: str) -> list[str]:
    """Every type that a form is made of, itself last."""
    bare, _, count = form.partition("[")
    if count:
        return ["u64", *_needed(bare), form]
    if bare.startswith("*"):
        return [bare[1:], bare]
    return [_PROTOTYPE, bare] if bare == "fn" else [bare]


def words(*values: int) -> bytes:
    """64-bit numbers one after another."""
    return struct.pack(f"<{len(values)}Q", *(value % (1 << 64) for value in values))
