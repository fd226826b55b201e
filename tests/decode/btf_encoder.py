"""Builds BTF from plain descriptions, including what no real encoder would write."""

import struct

from hypervigil.decode.btf_sections import MAGIC


class Encoder:
    """Collects records and strings; ids are given in order, from `first_id` on."""

    def __init__(self, first_id: int = 1, string_start: int = 0) -> None:
        self.strings = b"\0" if string_start == 0 else b""
        self.string_start = string_start
        self.types = b""
        self.next_id = first_id
        self.layout = b""

    def name(self, text: str) -> int:
        if not text:
            return 0
        place = self.string_start + len(self.strings)
        self.strings += text.encode() + b"\0"
        return place

    def add(self, name: str, kind: int, third: int, *tail: int, count: int = 0, flag: bool = False) -> int:
        info = flag << 31 | kind << 24 | count
        words = (self.name(name), info, third, *tail)
        self.types += struct.pack(f"<{len(words)}I", *(word & 0xFFFFFFFF for word in words))
        self.next_id += 1
        return self.next_id - 1

    def items(
        self, name: str, kind: int, third: int, *items: tuple[str, int] | tuple[str, int, int], flag: bool = False
    ) -> int:
        tail = [word for item in items for word in (self.name(item[0]), *item[1:])]
        return self.add(name, kind, third, *tail, count=len(items), flag=flag)

    def data(self) -> bytes:
        sections = self.types + self.strings + self.layout
        layout = struct.pack("<II", len(self.types + self.strings), len(self.layout)) if self.layout else b""
        header = struct.pack("<HBBI", MAGIC, 1, 0, 24 + len(layout))
        places = struct.pack("<4I", 0, len(self.types), len(self.types), len(self.strings))
        return header + places + layout + sections
