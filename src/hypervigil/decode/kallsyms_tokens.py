"""The token tables and the compressed names of a kallsyms section.

The kernel stores its symbol names in one stream of ``<length><codes>`` records; a length of 0x80
and more, which only 6.1 and newer have, goes on in a second byte. Each one-byte code stands
for a token (1 to a few characters) in `kallsyms_token_table`, 256 NUL-terminated strings;
`kallsyms_token_index` holds the 256 places where they begin. A character that occurs in any symbol name
stands for itself, which makes the ten digits, in order, an anchor that every kernel has and that needs no
hint.

Sources: Linux scripts/kallsyms.c (write_src, optimize_result), kernel/kallsyms.c
(kallsyms_expand_symbol); lengths of two bytes: 73bbb94466fd "kallsyms: support "big" kernel symbols"
(6.1).
"""

import itertools
import re
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from hypervigil.core.errors import DecodeError
from hypervigil.decode.kallsyms_holes import I64, U8, Holes, Mask

Buffer: TypeAlias = "bytes | bytearray | memoryview | npt.NDArray[np.uint8]"
"""Contiguous bytes; nothing here writes to them."""


TOKENS = 256
"""How many tokens a table has: one for each value of a byte."""

MARKER_STEP = 256
"""`kallsyms_markers` holds the place of every 256th name."""

MAX_NAME = 1024
"""Longest expanded symbol that is believed, in bytes; KSYM_NAME_LEN is 128 before 6.1, then 512."""

MAX_CANDIDATES = 256
"""How many places that look like a token table one buffer may hold before the scan gives up."""

LOST = "?"
"""The type letter of a symbol whose record is lost; `nm` writes it where it knows no type."""

_MAX_TABLE = 0x10000  # token_index is 16 bit wide
_MAX_EXPANDED = 1 << 27
_DIGITS = re.compile(re.escape(b"".join(b"%d\0" % digit for digit in range(10))))
_ALIGNMENT = 8
_BIG = 0x80


class TokenTables(msgspec.Struct, frozen=True):
    """Where a token table and its index lie in a buffer, or why the bytes there are none.

    Attributes:
        anchor: buffer offset at which the ten digit tokens (or, hinted, the table) were seen.
        table: half-open byte range of `kallsyms_token_table`, `(0, 0)` when rejected.
        index: half-open byte range of `kallsyms_token_index`, `(0, 0)` when rejected.
        rejected: why this is no pair of tables; empty for a good one.
    """

    anchor: int
    table: tuple[int, int] = (0, 0)
    index: tuple[int, int] = (0, 0)
    rejected: str = ""


def as_bytes(buffer: Buffer) -> U8:
    """Any contiguous buffer as a one-dimensional array of bytes, without a copy."""
    if isinstance(buffer, np.ndarray):
        return buffer.view(np.uint8).reshape(-1)
    return np.frombuffer(buffer, np.uint8)


def find_token_tables(buffer: Buffer) -> tuple[TokenTables, ...]:
    """Every place where the ten digits stand as consecutive tokens, in order of address.

    Nothing but the bytes is needed: no version, no symbol, no alignment. Good and rejected places are both
    returned, at most `MAX_CANDIDATES`; the last one then says that the scan stopped.
    """
    data = as_bytes(buffer)
    found: list[TokenTables] = []
    for match in _DIGITS.finditer(data.data):
        if len(found) == MAX_CANDIDATES:
            found.append(TokenTables(match.start(), rejected="too many candidates: the scan stopped here"))
            break
        found.append(_around_digits(data, match.start()))
    return tuple(found)


def token_tables_at(buffer: Buffer, table: int, index: int) -> TokenTables:
    """The tables at two known buffer offsets (VMCOREINFO names them since Linux 6.0), still checked in full.

    Args:
        buffer: the bytes that hold both.
        table: buffer offset of `kallsyms_token_table`.
        index: buffer offset of `kallsyms_token_index`.
    """
    data = as_bytes(buffer)
    if not (0 <= table < len(data) and 0 <= index <= len(data) - 2 * TOKENS):
        return TokenTables(max(table, 0), rejected="the hinted tables lie outside of the buffer")
    starts = _index_values(data, index)
    ends = _terminators(data, table, TOKENS)
    if len(ends) < TOKENS or not np.array_equal(starts[1:], ends[:-1] + 1 - table) or starts[0] != 0:
        return TokenTables(table, rejected="the hinted token index does not point at the starts of the tokens")
    return TokenTables(table, (table, int(ends[-1]) + 1), (index, index + 2 * TOKENS))


def _around_digits(data: U8, anchor: int) -> TokenTables:
    """Tables whose token 0x30 begins at `anchor`, found through the index that must follow the table."""
    digit = ord("0")
    ends = _terminators(data, anchor, TOKENS - digit)
    if len(ends) < TOKENS - digit:
        return TokenTables(anchor, rejected="fewer than 208 tokens follow the digit 0")
    end = int(ends[-1]) + 1
    for index in range(end, min(end + _ALIGNMENT, len(data) - 2 * TOKENS + 1)):
        starts = _index_values(data, index)
        table = anchor - int(starts[digit])
        if starts[0] or table < 0 or not np.array_equal(starts[digit + 1 :], ends[:-1] + 1 - table):
            continue
        return token_tables_at(data, table, index)
    return TokenTables(anchor, rejected="no token index that fits the tokens follows them")


def _terminators(data: U8, start: int, count: int) -> I64:
    """Buffer offsets of the first `count` NUL bytes from `start` on; fewer if 64 KiB hold fewer."""
    window = data[start : start + _MAX_TABLE]
    return np.flatnonzero(window == 0)[:count].astype(np.int64) + start


def _index_values(data: U8, index: int) -> I64:
    return data[index : index + 2 * TOKENS].view("<u2").astype(np.int64)


class NameStream(msgspec.Struct, frozen=True):
    """The records of `kallsyms_names`, walked and agreeing with the markers.

    Attributes:
        first: buffer offset of the first byte of codes of each symbol, one entry a symbol.
        length: how many codes each symbol has.
        end: buffer offset just past the last record; where that is lost, just before the markers.
        lost: symbols whose record is lost: from a hole on to the next marker. Their `first` and `length` mean nothing.
    """

    first: I64
    length: I64
    end: int
    lost: Mask


def walk_names(data: U8, names: int, markers: I64, count: int, bound: int) -> NameStream:
    """Walk all records, 256 at a time in parallel from each marker.

    Args:
        data: the buffer.
        names: buffer offset of `kallsyms_names`.
        markers: offsets from `names` of every 256th record, the first one 0.
        count: number of symbols.
        bound: buffer offset of the markers, before which the records end.

    Raises:
        DecodeError: a record leaves the buffer, the walk from one marker does not end exactly at the next though
            nothing between them is lost, or most of the names are lost.
    """
    blocks = len(markers)
    holes = Holes(data, names, bound)
    edges = np.append(markers + names, bound)
    damaged = holes.touch(edges[:-1], edges[1:])
    first = np.zeros((MARKER_STEP, blocks), np.int64)
    length = np.zeros((MARKER_STEP, blocks), np.int64)
    at = markers + names
    limit = len(data) - 2
    last = count - (blocks - 1) * MARKER_STEP
    end = -1
    for step in range(MARKER_STEP):
        if step == last:
            end = int(at[-1])
        at = np.minimum(at, limit)
        first[step], length[step] = _records(data, at)
        at = first[step] + length[step]
    end = int(at[-1]) if end < 0 else end
    lost = _lost_records(first, length, edges, np.flatnonzero(damaged), holes)
    if lost[:, -1].any():
        end = bound
    wrong = np.flatnonzero((at[:-1] != edges[1:-1]) & ~lost[:, :-1].any(axis=0))
    if len(wrong):
        raise DecodeError("kallsyms_names", f"names do not end at marker {int(wrong[0]) + 1}", names)
    if end > limit:
        raise DecodeError("kallsyms_names", "the last names lie outside of the buffer", names)
    gone = lost.T.reshape(-1)[:count]
    if 2 * int(gone.sum()) > count:
        raise DecodeError("kallsyms_names", "most of the names are lost", names)
    return NameStream(first.T.reshape(-1)[:count], length.T.reshape(-1)[:count], end, gone)


def _lost_records(first: I64, length: I64, edges: I64, damaged: npt.NDArray[np.intp], holes: Holes) -> Mask:
    """Of the blocks that a hole touches, the records from the first one in it to the end of the block."""
    lost = np.zeros(first.shape, np.bool_)
    for block in damaged.tolist():
        ends = first[:, block] + length[:, block]
        starts = np.append(edges[block], ends[:-1])
        lost[:, block] = np.logical_or.accumulate(holes.touch(starts, ends) | (ends > edges[block + 1]))
    return lost


def skip_block(data: U8, at: I64) -> I64:
    """Where the walks end that begin at buffer offsets `at` and go over the records between two markers."""
    limit = len(data) - 2
    for _ in range(MARKER_STEP):
        first, length = _records(data, np.minimum(at, limit))
        at = first + length
    return at


def _records(data: U8, at: I64) -> tuple[I64, I64]:
    """Where the codes of the records at `at` begin, and how many there are."""
    size = data[at].astype(np.int64)
    body = at + 1
    if int(size.max()) >= _BIG:
        wide = size >= _BIG
        size = np.where(wide, (size & (_BIG - 1)) | (data[body].astype(np.int64) << 7), size)
        body += wide
    return body, size


def expand(data: U8, stream: NameStream, tables: TokenTables) -> tuple[str, tuple[str, ...]]:
    """Expand every record into its type letter and its name.

    Args:
        data: the buffer.
        stream: the records.
        tables: good token tables of the same buffer.

    Returns:
        The type letters, as one string with a letter a symbol (`T`, `t`, `D`, ... as nm(1) has them), and the
        names in the order of the table, decoded as latin-1 so that no byte is lost. A record that is lost has the
        type `LOST` and an empty name.

    Raises:
        DecodeError: an empty symbol, one longer than `MAX_NAME`, or more text than any kernel has.
    """
    if stream.lost.any():
        return _expand_around(data, stream, tables)
    starts = _index_values(data, tables.index[0])
    sizes = np.diff(np.append(starts, tables.table[1] - tables.table[0])) - 1
    codes, ends = _codes(data, stream)
    spelled = sizes.astype(np.int32)[codes]
    place = np.cumsum(spelled, dtype=np.int64)
    symbol_ends = place[ends - 1]
    lengths = np.diff(symbol_ends, prepend=0)
    if int(lengths.min()) < 1 or int(lengths.max()) > MAX_NAME or int(symbol_ends[-1]) > _MAX_EXPANDED:
        raise DecodeError("kallsyms_names", "a symbol is empty or too long", int(stream.first[0]))
    text = _spell(data, tables.table[0] + starts, codes, (spelled, place))
    heads = symbol_ends - lengths
    types = text[heads].tobytes().decode("latin-1")
    if (text == 0).any():
        raise DecodeError("kallsyms_names", "a token holds a NUL", tables.table[0])
    text[heads] = 0
    return types, tuple(text.tobytes().decode("latin-1").split("\0")[1:])


def _expand_around(data: U8, stream: NameStream, tables: TokenTables) -> tuple[str, tuple[str, ...]]:
    """Expand each run of records that are there, and fill up with lost ones."""
    edges = [0, *(np.flatnonzero(np.diff(stream.lost)) + 1).tolist(), len(stream.lost)]
    types: list[str] = []
    names: list[str] = []
    for low, high in itertools.pairwise(edges):
        if stream.lost[low]:
            types.append(LOST * (high - low))
            names += [""] * (high - low)
            continue
        first, length = stream.first[low:high], stream.length[low:high]
        run = NameStream(first, length, int(first[-1] + length[-1]), stream.lost[low:high])
        letters, spelled = expand(data, run, tables)
        types.append(letters)
        names += spelled
    return "".join(types), tuple(names)


def _codes(data: U8, stream: NameStream) -> tuple[U8, I64]:
    """All codes of all symbols in one array, without the length bytes, and where each symbol's codes end."""
    if not len(stream.length) or int(stream.length.min()) < 1:
        raise DecodeError("kallsyms_names", "a symbol without codes")
    begin = int(stream.first[0])
    keep = np.ones(stream.end - begin, bool)
    keep[stream.first[1:] - 1 - begin] = False
    keep[(stream.first + stream.length)[:-1] - begin] = False  # the same byte unless the length has two
    return data[begin : stream.end][keep], np.cumsum(stream.length)


def _spell(data: U8, tokens: I64, codes: U8, layout: tuple[npt.NDArray[np.int32], I64]) -> U8:
    """Write the nth character of every token that has one; the longest token bounds the loop."""
    spelled, place = layout
    text = np.zeros(int(place[-1]), np.uint8)
    begin = (place - spelled).astype(np.int32)
    for nth in range(int(spelled.max(initial=0))):
        kept = np.flatnonzero(spelled > nth)
        codes, spelled, begin = codes[kept], spelled[kept], begin[kept]
        text[begin + nth] = data[np.minimum(tokens + nth, len(data) - 1)][codes]
    return text
