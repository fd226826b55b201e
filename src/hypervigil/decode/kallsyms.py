"""The kernel's own symbol table, decoded from memory without a hint, for every layout of Linux 5.10 to 7.2.

The tables lie in the kernel's read-only data, each one aligned to 8 bytes (4 since 7.0), in one of these
orders::

    before 6.4   offsets|addresses, relative_base, num_syms, names, markers, (seqs_of_names),
                 token_table, token_index
    6.4 to 6.19  num_syms, names, markers, token_table, token_index,
                 offsets|addresses, relative_base, seqs_of_names
    from 7.0     num_syms, names, markers, token_table, token_index, offsets, seqs_of_names

No version is tested: `decode_kallsyms` starts at the token tables and accepts what is consistent with
itself. The markers must agree with a walk over every name, num_syms with the markers, the addresses must
be in order, and the relative base must be an address of the kernel half. What is odd but does not prevent
decoding (an address out of order, a sequence that is no permutation) is kept in
`KallsymsTable.contradictions`: the tables are writable by whoever controls the kernel, and no build of a
kernel produces such a thing. A page of the tables that is all zero is lost, not wrong: what lies around it is used, and
the rest is told (`hypervigil.decode.kallsyms_holes`).

Sources: Linux scripts/kallsyms.c and kernel/kallsyms.c; 2213e9a66bb8 "kallsyms: add support for relative
offsets in kallsyms address table" (4.6, with the per-CPU rule: an offset of 0 or more is an absolute
value, a negative one n means relative_base - 1 - n); 60443c88f3a8 "kallsyms: Improve the performance of
kallsyms_lookup_name()" (6.2 and its stable predecessors, seqs_of_names); 404bad70fcf7 "scripts/kallsyms: change the
output order" (6.4); "kallsyms: Get rid of kallsyms relative base" (7.0, each offset is relative to its
own place).
"""

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from hypervigil.core.errors import DecodeError
from hypervigil.core.units import VirtAddr
from hypervigil.decode.kallsyms_holes import I64, U8, Holes, Mask
from hypervigil.decode.kallsyms_layout import Body, each_body
from hypervigil.decode.kallsyms_rebuilt import NamesHint, rebuilt_body
from hypervigil.decode.kallsyms_tokens import (
    Buffer,
    TokenTables,
    as_bytes,
    expand,
    find_token_tables,
    token_tables_at,
)
from hypervigil.decode.kallsyms_values import Values, find_values, read_sequence, sequence_faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "Contradiction",
    "KallsymsSearch",
    "KallsymsTable",
    "NamesHint",
    "TokenTables",
    "decode_kallsyms",
    "find_token_tables",
    "search_kallsyms",
    "token_tables_at",
]

_ADDRESS_SPACE = 1 << 64
_MAX_BODIES = 8
_RELATIVE_BASE = "kallsyms_relative_base"


class Contradiction(NamedTuple):
    """What does not fit the rest, as a sentence.

    Attributes:
        text: what is wrong.
        at: buffer offset of the bytes that say it.
        lost: whether it only is not there; then it accuses nobody.
    """

    text: str
    at: int
    lost: bool = False


class KallsymsTable(msgspec.Struct, frozen=True, eq=False):
    """A whole symbol table, in the order in which the kernel stores it (by address, but for tampering).

    Attributes:
        addresses: uint64, one a symbol. Absolute per-CPU symbols have small values. When `anchored` is
            false these are distances, modulo 2**64, from the start of the buffer, or from the relative base where that
            is lost (`base_lost`): see `rebased`.
        names: one a symbol, latin-1, without the type letter; the same name may occur more than once. Empty where it
            is lost.
        types: one letter a symbol, as nm(1) has them.
        layout: how the table was recognised, for the analyst.
        relative_base: `kallsyms_relative_base` as found, relocated by KASLR; None where the layout has none, or it is
            lost.
        anchored: whether `addresses` are virtual addresses.
        ranges: half-open buffer range of each table, by the kernel's name for it.
        contradictions: what in the tables does not fit the rest, or is lost; empty for what a build made.
        placeless: symbols whose address is lost, or out of order, so that it is not where the build put it; their
            `addresses` mean nothing.
        sequence: positions of the symbols in the order of their names (strcmp), -1 where that is lost; None where the
            layout has no such table.
        fixed: where the relative base is lost: symbols whose value does not count from it.
    """

    addresses: npt.NDArray[np.uint64]
    names: tuple[str, ...]
    types: str
    layout: str
    relative_base: VirtAddr | None
    anchored: bool
    ranges: "Mapping[str, tuple[int, int]]"
    contradictions: tuple[Contradiction, ...]
    placeless: Mask
    sequence: I64 | None
    fixed: Mask | None = None

    @property
    def base_lost(self) -> bool:
        """Whether the addresses count from a relative base that is lost."""
        return self.fixed is not None and not self.anchored

    def place_of(self, position: int) -> int:
        """Buffer offset of what the table says of the address of the symbol at a position."""
        name = "kallsyms_addresses" if "kallsyms_addresses" in self.ranges else "kallsyms_offsets"
        start, end = self.ranges[name]
        return start + position * ((end - start) // len(self.names))

    def by_name(self) -> dict[str, tuple[int, ...]]:
        """Positions in the table of every name, ascending; built anew by each call, so keep it.

        Symbols whose name or address is lost are not in it.
        """
        found: dict[str, tuple[int, ...]] = dict(zip(self.names, zip(range(len(self.names))), strict=True))
        if len(found) < len(self.names):
            several: dict[str, list[int]] = {name: [] for name, count in Counter(self.names).items() if count > 1}
            for position, name in enumerate(self.names):
                if name in several:
                    several[name].append(position)
            found.update((name, tuple(positions)) for name, positions in several.items())
        if self.placeless.any() or "" in found:
            found.pop("", None)
            kept = {name: tuple(p for p in positions if not self.placeless[p]) for name, positions in found.items()}
            return {name: positions for name, positions in kept.items() if positions}
        return found

    def rebased(self, base: VirtAddr) -> "KallsymsTable":
        """The same table with virtual addresses, given the virtual address from which the distances count.

        Raises:
            ValueError: the table has virtual addresses already.
        """
        if self.anchored:
            raise ValueError("the table is anchored already")
        addresses = self.addresses + np.uint64(base % _ADDRESS_SPACE)
        if self.fixed is None:
            return msgspec.structs.replace(self, addresses=addresses, anchored=True)
        addresses = np.where(self.fixed, self.addresses, addresses)
        return msgspec.structs.replace(self, addresses=addresses, anchored=True, relative_base=base)


class KallsymsSearch(msgspec.Struct, frozen=True, eq=False):
    """Every table of a buffer, and every place that looked like one and was not.

    Attributes:
        tables: in order of address.
        rejected: token tables with the reason in `rejected`.
    """

    tables: tuple[KallsymsTable, ...]
    rejected: tuple[TokenTables, ...]


def search_kallsyms(buffer: Buffer, base: VirtAddr | None = None) -> KallsymsSearch:
    """Find and decode all symbol tables of a buffer; stale copies are tables like any other.

    Args:
        buffer: contiguous bytes that begin at an address divisible by 8, such as a physical run.
        base: virtual address of the first byte, where it is known.
    """
    tables: list[KallsymsTable] = []
    rejected: list[TokenTables] = []
    for candidate in find_token_tables(buffer):
        try:
            tables.append(decode_kallsyms(buffer, candidate, base))
        except DecodeError as fault:
            reason = candidate.rejected or str(fault)
            rejected.append(msgspec.structs.replace(candidate, rejected=reason))
    return KallsymsSearch(tuple(tables), tuple(rejected))


def decode_kallsyms(
    buffer: Buffer, candidate: TokenTables, base: VirtAddr | None = None, hint: NamesHint | None = None
) -> KallsymsTable:
    """Decode the symbol table that a pair of token tables belongs to.

    Args:
        buffer: contiguous bytes that begin at an address divisible by 8 and hold all the tables.
        candidate: from `find_token_tables` or `token_tables_at` over the same buffer.
        base: virtual address of the first byte, used by the layout of 7.0 and newer only.
        hint: where the names begin, used only where the markers are lost.

    Raises:
        DecodeError: the candidate was rejected, or what lies around it is no symbol table.
    """
    if candidate.rejected:
        raise DecodeError("kallsyms", candidate.rejected, candidate.anchor)
    data = as_bytes(buffer)
    body, values, (types, names) = _parts(data, candidate, hint)
    addresses, sequence = values.addresses, body.sequence or values.sequence
    if values.place_relative and base is not None:
        addresses = addresses + np.uint64(base % _ADDRESS_SPACE)
    return KallsymsTable(
        addresses=addresses,
        names=names,
        types=types,
        layout=values.how,
        relative_base=None if values.base is None else VirtAddr(values.base),
        anchored=values.fixed is None and (base is not None or not values.place_relative),
        ranges=_ranges(candidate, body, values),
        contradictions=(*_contradictions(data, body, values, types, names), *_losses(data, body, values)),
        placeless=_placeless(values),
        sequence=None if sequence is None else read_sequence(data, sequence, body.count),
        fixed=values.fixed,
    )


def _parts(
    data: U8, candidate: TokenTables, hint: NamesHint | None
) -> tuple[Body, Values, tuple[str, tuple[str, ...]]]:
    """The first names that can be spelled and with which addresses go; what they are is the last of the three.

    Raises:
        DecodeError: there are none; of several reasons, the first.
    """
    fault: DecodeError | None = None
    for body in _each_body(data, candidate.table[0], hint):
        try:
            values = find_values(data, body, candidate.index[1])
            return body, values, expand(data, body.stream, candidate)
        except DecodeError as error:
            fault = fault or error
    raise fault or DecodeError("kallsyms", "no names before the token table", candidate.anchor)


def _each_body(data: U8, table: int, hint: NamesHint | None) -> "Iterator[Body]":
    """The names that markers tell, then those that a hint tells."""
    fault: DecodeError | None = None
    try:
        yield from islice(each_body(data, table), _MAX_BODIES)
    except DecodeError as error:
        fault = error
    body = None if hint is None else rebuilt_body(data, table, hint)
    if body is not None:
        yield body
    elif fault is not None:
        raise fault


def _ranges(candidate: TokenTables, body: Body, values: Values) -> dict[str, tuple[int, int]]:
    sequence = body.sequence or values.sequence
    ranges = {
        "kallsyms_num_syms": body.num_syms,
        "kallsyms_names": body.names,
        "kallsyms_markers": body.markers,
        "kallsyms_token_table": candidate.table,
        "kallsyms_token_index": candidate.index,
        values.name: values.range,
    }
    if values.base_range is not None:
        ranges[_RELATIVE_BASE] = values.base_range
    if sequence is not None:
        ranges["kallsyms_seqs_of_names"] = sequence
    return ranges


def _contradictions(
    data: U8, body: Body, values: Values, types: str, names: tuple[str, ...]
) -> tuple[Contradiction, ...]:
    start, end = values.range
    width = (end - start) // body.count
    found = [
        Contradiction(f"symbol {at}, {names[at] or 'whose name is lost'}, is out of order", start + at * width)
        for at in values.unsorted
    ]
    sequence = body.sequence or values.sequence
    if sequence is not None and (faults := sequence_faults(data, sequence, body.count)):
        found.append(Contradiction(f"kallsyms_seqs_of_names leaves {faults} symbols out", sequence[0]))
    if strange := sorted(set(types) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-?")):
        found.append(Contradiction(f"symbol types that nm does not have: {strange}", body.names[0]))
    return tuple(found)


def _placeless(values: Values) -> Mask:
    """The symbols whose value is lost or out of order: where they really are, their neighbours bound."""
    placeless = values.lost.copy()
    placeless[list(values.unsorted)] = True
    return placeless


def _losses(data: U8, body: Body, values: Values) -> "Iterator[Contradiction]":
    """What is lost of the tables, a sentence for each."""
    sequence = body.sequence or values.sequence
    lost_places = np.zeros(0, np.bool_) if sequence is None else read_sequence(data, sequence, body.count) < 0
    for what, lost, at in (
        ("names", body.stream.lost, body.names[0]),
        ("addresses", values.lost, values.range[0]),
        ("places in the order of names", lost_places, 0 if sequence is None else sequence[0]),
    ):
        if lost.any():
            text = f"{what} of {int(lost.sum())} of {body.count} symbols are lost: pages of the table are all zero"
            yield Contradiction(text, at, lost=True)
    if Holes(data, *body.markers).hit(*body.markers):
        yield Contradiction("kallsyms_markers is lost: the names were walked", body.markers[0], lost=True)
    if Holes(data, *body.num_syms).hit(*body.num_syms):
        yield Contradiction("kallsyms_num_syms is lost: the names were counted", body.num_syms[0], lost=True)
    if values.fixed is not None and values.base_range is not None:
        yield Contradiction(f"{_RELATIVE_BASE} is lost", values.base_range[0], lost=True)
