"""Alternatives: instructions that were chosen for this processor at boot (arch/x86/kernel/alternative.c).

``struct alt_instr`` (arch/x86/include/asm/alternative.h) begins with the distances to the instruction and to its
replacement and ends with the lengths of both; in between its layout changed (6.3: flags, 14 bytes). Several entries
may speak of one place: each replaces what the one before it left. What stood there at first is not kept in memory.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from hypervigil.linux.text.code import U8, U64, Code, Mask, gather, moved
from hypervigil.linux.text.instructions import each_branch, may_branch, meaning, same
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import JMP, Sites, Table, branch, column
from hypervigil.linux.text.thunks import counted
from hypervigil.memory.kernel import Kernel

SECTION = ".altinstructions"

_REPLACEMENT_AT = 4
_LEAST_ENTRY = 12
_BY_POINTER = b"\xff\x15"
_CALL = 6
_NARROW = 1 << 32
_RETURN = 5


class Alternative(NamedTuple):
    """One place and what may stand there.

    Attributes:
        address: virtual address of the place.
        size: its bytes.
        replacements: ``(address, size)`` of each replacement; size 0 stands for nothing but padding.
    """

    address: int
    size: int
    replacements: tuple[tuple[int, int], ...]


def alternative_sites(place: Place) -> Sites:
    """Every place must hold one of its replacements, or what was there before: known from a package only."""
    found = alternatives(place)
    address = np.array([one.address for one in found], np.uint64)
    original = place.original
    if original is None:
        replaced: Mask = np.array([is_replaced(place, one) for one in found], np.bool_)
        built = np.array([_plausible(place, one) for one in found], np.bool_)
    else:
        built = np.array([is_same(place, original, one) for one in found], np.bool_)
        pairs = zip(found, built.tolist(), strict=True)
        replaced = np.array([not same and is_replaced(place, one) for one, same in pairs], np.bool_)

    def expected(row: int) -> tuple[bytes, ...]:
        one = found[row]
        first = () if original is None else (original.piece(one.address, one.size),)
        return (*first, *(text for at, size in one.replacements for text in _replacement(place, at, size)[:1] if text))

    return Sites(
        kind="alternative",
        address=address,
        size=np.array([one.size for one in found], np.int64),
        states=(("replaced", replaced), ("as built", built & ~replaced)),
        legal="the instructions it was built with or a listed replacement",
        expected=expected,
    )


def alternatives(place: Place) -> list[Alternative]:
    """The places of an object's table of alternatives, each once, ascending.

    Raises:
        MissingDescription: the type of its entries is not known.
    """
    address, replacement, lengths = _columns(place.system.kernel, place.tables)
    merged: dict[int, list[tuple[int, int, int]]] = {}
    for row in np.flatnonzero(_sound(place.code, address, lengths[:, 0].astype(np.int64))).tolist():
        entry = (int(lengths[row, 0]), int(replacement[row]), int(lengths[row, 1]))
        merged.setdefault(int(address[row]), []).append(entry)
    return [
        Alternative(one, max(size for size, _, _ in entries), tuple((where, size) for _, where, size in entries))
        for one, entries in sorted(merged.items())
    ]


def replacements(kernel: Kernel, tables: Mapping[str, Table]) -> list[tuple[int, int]]:
    """Half-open ranges of all replacements that an object's table of alternatives names, those of init text as well.

    Raises:
        MissingDescription: the type of its entries is not known.
    """
    _, replacement, lengths = _columns(kernel, tables)
    return [(at, at + size) for at, size in zip(replacement.tolist(), lengths[:, 1].tolist(), strict=True) if size]


def _columns(kernel: Kernel, tables: Mapping[str, Table]) -> tuple[U64, U64, U8]:
    """Addresses of the places and of their replacements, and the lengths of both, one row an entry."""
    table = tables.get(SECTION, Table(0, b""))
    width = kernel.type("struct alt_instr").size or _LEAST_ENTRY
    address = moved(*column(table, width, 0))
    replacement = moved(*column(table, width, _REPLACEMENT_AT))
    lengths = np.frombuffer(table.data, np.uint8, len(address) * width).reshape(len(address), width)[:, -2:]
    return address, replacement, lengths


def _sound(code: Code, address: U64, size: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Mask:
    found: Mask = (size > 0) & code.holds(address, size)
    return found


def is_replaced(place: Place, one: Alternative) -> bool:
    """Whether a place holds one of its replacements."""
    found = place.code.piece(one.address, one.size)
    wanted = [(at, text) for at, size in one.replacements for text in _replacement(place, at, size)]
    wanted += [(at, _returning(place, text, at)) for at, text in wanted]
    if place.moved_by:
        wanted += [(at, _moved(text, found, at - one.address, place.moved_by)) for at, text in wanted]
    for _, text in wanted:
        if text and found.startswith(text) and not may_branch(text) and _padded(found[len(text) :]):
            return True
    return any(same(found, one.address, text, at) for at, text in wanted)


def _moved(text: bytes, found: bytes, away: int, offset: int) -> bytes:
    """A replacement whose 32-bit numbers are moved where those that were found are moved by exactly the offset.

    Distances to per-CPU variables move back by it, and also by how far the replacement stands away from its place.
    """
    result = bytearray(text)
    for at in range(min(len(text), len(found)) - 3):
        mine, built = (int.from_bytes(data[at : at + 4], "little") for data in (found, text))
        if (mine - built) % _NARROW == offset % _NARROW:
            result[at : at + 4] = found[at : at + 4]
        elif (mine - built) % _NARROW == (away - offset) % _NARROW:
            result[at : at + 4] = ((built - offset) % _NARROW).to_bytes(4, "little")
    return bytes(result)


def _returning(place: Place, text: bytes, address: int) -> bytes:
    """A replacement whose returns go through the thunk that this machine chose, or are plain.

    Returns are patched before alternatives are applied (alternative_instructions), also those in replacements.
    """
    thunks = place.registry.thunks.returns
    result = bytearray(text)
    for at in range(len(text) - _RETURN + 1) if len(thunks) > 1 else ():
        if text[at : at + _RETURN] == branch(JMP, address + at, thunks[-1]):
            result[at : at + _RETURN] = branch(JMP, address + at, thunks[0])
    return bytes(result)


def _replacement(place: Place, address: int, size: int) -> tuple[bytes, ...]:
    """A replacement as it stands in memory, and as it was built."""
    if not size:
        return (b"",)
    built = b"" if place.as_built is None else place.as_built(address, size)
    return tuple(text for text in (place.code.piece(address, size), built) if text)


def is_same(place: Place, original: Code, one: Alternative) -> bool:
    """Whether a place still does what it was built to do, or calls directly what it was built to call by pointer."""
    found, built = place.code.piece(one.address, one.size), original.piece(one.address, one.size)
    if same(found, one.address, built, one.address):
        return True
    return meaning(found, one.address) in _direct(place, built, found, one.address)


def _direct(place: Place, built: bytes, found: bytes, address: int) -> tuple[tuple[tuple[str, str], ...], ...]:
    """What a call through a pointer may become where it is made direct: nothing where it leads to ``nop_func``.

    ALT_FLAG_DIRECT_CALL: 95a79b7ba6e9 "x86/alternative: Add indirect call patching" (6.8). On processors whose calls
    are counted it may lead to the code that does that.
    """
    if not built.startswith(_BY_POINTER) or len(built) < _CALL:
        return ()
    pointer = address + _CALL + int.from_bytes(built[2:_CALL], "little", signed=True)
    read = gather(place.system.kernel.space, np.array([pointer % (1 << 64)], np.uint64), 8)
    target = int(read.u64()[0])
    if not read.seen[0] or place.registry.landing.refuses("", read.u64()).any():
        return ()
    if target == place.symbol("nop_func"):
        return ((),)
    leads = [target, *(to for _, to in each_branch(found, address) if _counts(place, to, target))]
    return tuple((("call", f"{to:#x}"),) for to in leads)


def _counts(place: Place, target: int, function: int) -> bool:
    space = place.system.kernel.space
    return bool(counted(space, np.array([target], np.uint64), np.array([function], np.uint64))[0])


def _plausible(place: Place, one: Alternative) -> bool:
    """Whether what a place holds may be what it was built with: no branch out of it leads to foreign code."""
    targets = [target for _, target in each_branch(place.code.piece(one.address, one.size), one.address)]
    return not place.registry.landing.refuses(place.code.owner, np.array(targets, np.uint64)).any()


def _padded(rest: bytes) -> bool:
    return not rest or not meaning(rest, 0)
