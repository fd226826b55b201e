"""Builds kallsyms sections in every layout, the way the kernel's build does but for the choice of tokens."""

import string
import struct
from dataclasses import dataclass, field

KERNEL = 0xFFFF_FFFF_8100_0000
_FREE = b"\1\2\3\4\5\6\7\x08\x80\x81\xfe\xff"
_TOKENS = (b"tkvm_", b"Tsys_", b"_handler", b"ops")


@dataclass
class Section:
    """The bytes of a section and where the tests expect each table."""

    data: bytearray = field(default_factory=bytearray)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def put(self, name: str, content: bytes, alignment: int) -> None:
        self.data += bytes(-len(self.data) % alignment)
        start = len(self.data)
        self.data += content
        self.places[name] = (start, len(self.data))


def symbols(count: int) -> list[tuple[int, str]]:
    """Sorted (address, type and name); some share an address, and one name is longer than 127 codes."""
    made = [(KERNEL + 16 * (i - i % 7), f"tkvm_{i}_handler") for i in range(count - 3)]
    made += [(KERNEL + 16 * count, "Tsys_ops"), (KERNEL + 16 * count, "d" + "long_" * 40), (made[-1][0], "Wweak")]
    return sorted(made, key=lambda made: made[0])


def _tables() -> tuple[dict[bytes, int], list[bytes]]:
    tokens = [bytes([code]) if chr(code) in string.ascii_letters + string.digits + "_." else b"" for code in range(256)]
    codes = {}
    for code, token in zip(_FREE, _TOKENS, strict=False):
        tokens[code] = token
        codes[token] = code
    return codes, tokens


def _record(name: str, codes: dict[bytes, int]) -> bytes:
    raw = name.encode()
    for token, code in codes.items():
        raw = raw.replace(token, bytes([code]))
    length = len(raw)
    return (bytes([length]) if length < 0x80 else bytes([length & 0x7F | 0x80, length >> 7])) + raw


def encode(made: list[tuple[int, str]], layout: str, lead: int = 4096) -> Section:
    """Encode `made` as `layout`, with `lead` bytes of other data before and after it.

    Layouts: `5.10`, `5.10-percpu`, `5.10-addresses`, `6.2`, `6.4`, `6.4-percpu`, `6.4-addresses`, `7.0`.
    """
    section = Section(bytearray(b"\xa5" * lead))
    alignment = 4 if layout == "7.0" else 8
    codes, tokens = _tables()
    parts = _parts(made, codes, tokens)
    late = not layout.startswith(("5.", "6.2"))
    order = ["num_syms", "names", "markers", "token_table", "token_index"]
    if layout == "6.2":
        order.insert(3, "seqs_of_names")
    if late:
        _put(section, parts, order, alignment)
    _put_values(section, made, layout, alignment)
    if late:
        order = ["seqs_of_names"]
    _put(section, parts, order, alignment)
    section.data += b"\xa5" * lead
    return section


def _put(section: Section, parts: dict[str, bytes], order: list[str], alignment: int) -> None:
    for name in order:
        section.put(f"kallsyms_{name}", parts[name], alignment)


def _parts(made: list[tuple[int, str]], codes: dict[bytes, int], tokens: list[bytes]) -> dict[str, bytes]:
    records = [_record(name, codes) for _, name in made]
    starts = [0]
    for record in records:
        starts.append(starts[-1] + len(record))
    places = [0]
    for token in tokens:
        places.append(places[-1] + len(token) + 1)
    by_name = sorted(range(len(made)), key=lambda i: made[i][1][1:])
    return {
        "num_syms": struct.pack("<I", len(made)),
        "names": b"".join(records),
        "markers": b"".join(struct.pack("<I", start) for start in starts[:-1:256]),
        "token_table": b"".join(token + b"\0" for token in tokens),
        "token_index": struct.pack("<256H", *places[:256]),
        "seqs_of_names": b"".join(i.to_bytes(3, "big") for i in by_name),
    }


def _put_values(section: Section, made: list[tuple[int, str]], layout: str, alignment: int) -> None:
    if layout.endswith("addresses"):
        section.put("kallsyms_addresses", b"".join(struct.pack("<Q", a) for a, _ in made), alignment)
        return
    start = len(section.data) + -len(section.data) % alignment
    base = min((address for address, _ in made if address >= KERNEL), default=KERNEL)
    section.put(
        "kallsyms_offsets",
        b"".join(
            struct.pack("<I", _offset(address, base, layout, start + 4 * i) & 0xFFFFFFFF)
            for i, (address, _) in enumerate(made)
        ),
        alignment,
    )
    if layout != "7.0":
        section.put("kallsyms_relative_base", struct.pack("<Q", base), alignment)


def _offset(address: int, base: int, layout: str, place: int) -> int:
    if layout == "7.0":
        return address - KERNEL - place  # the buffer is taken to begin at KERNEL
    if layout.endswith("percpu"):
        return address if address < KERNEL else base - address - 1
    return address - base
