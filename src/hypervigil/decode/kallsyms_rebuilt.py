"""The names of a kallsyms section whose markers are lost, walked from their start to the first hole.

The markers only shorten the way to a name. Without them a walk from the first record gives every other one, but where
the names begin must be told otherwise: VMCOREINFO does since Linux 6.0 (5fd8fea935a1 "vmcoreinfo: include kallsyms
symbols").
"""

from typing import NamedTuple

import numpy as np

from hypervigil.decode.kallsyms_holes import U8, Holes
from hypervigil.decode.kallsyms_layout import MAX_SYMBOLS, Body, sequence_between
from hypervigil.decode.kallsyms_tokens import MARKER_STEP, NameStream
from hypervigil.decode.kallsyms_values import sequence_faults

_BEHIND = (4, 8)
"""So many bytes after num_syms the names begin, by the alignment."""

_BIG = 0x80
_ALIGNMENT = 8
_TOLERATED = 64


class NamesHint(NamedTuple):
    """Buffer offsets at which a kernel says that its tables begin.

    Attributes:
        num_syms: the number of symbols.
        names: the records.
    """

    num_syms: int
    names: int


def rebuilt_body(data: U8, table: int, hint: NamesHint) -> Body | None:
    """The names at a hint; those behind the first hole are lost, since nothing says where a record begins there.

    Args:
        data: the buffer.
        table: buffer offset of the token table.
        hint: where the tables begin.

    Returns:
        None where the hint does not fit, where no marker is lost, and where most of the names are.
    """
    num_syms, names = hint
    if num_syms < 0 or num_syms % 4 or names - num_syms not in _BEHIND or not names < table <= len(data):
        return None
    count = int.from_bytes(data[num_syms : num_syms + 4].tobytes(), "little")
    if not 0 < count <= min(MAX_SYMBOLS, (table - names) // 2):
        return None
    bound = _markers_before(data, table, count)
    markers = bound, bound + 4 * -(-count // MARKER_STEP)
    if bound <= names or not Holes(data, *markers).hit(*markers):
        return None
    stream = _walked(data, names, bound, count)
    if 2 * int(stream.lost.sum()) > count:
        return None
    return Body(
        count=count,
        num_syms=(num_syms, num_syms + 4),
        names=(names, stream.end),
        markers=markers,
        sequence=sequence_between(markers[1], table, count),
        stream=stream,
    )


def _markers_before(data: U8, table: int, count: int) -> int:
    """Where the markers of so many names would begin: before the token table, or before the sequence that is there."""
    sequence = (table - 3 * count) & -_ALIGNMENT
    faults = sequence_faults(data, (sequence, sequence + 3 * count), count) if sequence > 0 else count
    end = table if faults > count // _TOLERATED else sequence
    return (end - 4 * -(-count // MARKER_STEP)) & -_ALIGNMENT


def _walked(data: U8, names: int, bound: int, count: int) -> NameStream:
    """The records from `names` on, as far as they lie before `bound` and in no hole."""
    holes = Holes(data, names, bound)
    content = data[names:bound].tobytes()
    first, length = np.zeros(count, np.int64), np.zeros(count, np.int64)
    at = 0
    for position in range(count):
        if at + 2 > len(content):
            break
        size, body = content[at], at + 1
        if size >= _BIG:
            size, body = (size & (_BIG - 1)) | content[at + 1] << 7, at + 2
        if not size or body + size > len(content):
            break
        first[position], length[position] = names + body, size
        at = body + size
    lost = holes.touch(np.append(names, (first + length)[:-1]), first + length) | (length == 0)
    lost = np.logical_or.accumulate(lost)
    return NameStream(first, length, bound if lost[-1] else names + at, lost)
