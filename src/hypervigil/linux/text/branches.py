"""Direct branches that leave the text of an object for code that is nobody's: inline hooks.

Every byte that could begin a direct branch is looked at in bulk; the few that would lead to foreign code count only
if a disassembly from their function's start comes to them.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hypervigil.linux.system import KERNEL
from hypervigil.linux.text.code import U64, Code, Mask, among, moved
from hypervigil.linux.text.instructions import each_step
from hypervigil.linux.text.landing import Landing, Ranges
from hypervigil.linux.text.sites import CALL
from hypervigil.memory.symbols import Symbols

_PAIR = 0xFE
_JCC = (0x0F, 0x80)
_MAX_FUNCTION = 1 << 18
_MAX_CHECKED = 1 << 15
_PIECE = 1 << 17
_GRAIN = 3
_COLD = ".cold"

Positions = npt.NDArray[np.intp]


class Dead(NamedTuple):
    """Code that nothing runs any more, half-open, and the freed memory it may still lead to.

    Once alternatives are chosen, nothing runs ``.altinstr_aux`` and ``.altinstr_replacement``; what they hold for a
    module's init text leads to where that was, which by now may be another's.
    """

    start: int
    end: int
    low: int
    high: int

    def explains(self, addresses: U64, targets: U64) -> Mask:
        """Which branches stand in it and lead to its freed memory."""
        inside = (addresses >= np.uint64(self.start)) & (addresses < np.uint64(self.end))
        found: Mask = inside & (targets >= np.uint64(self.low)) & (targets < np.uint64(self.high))
        return found


class Stray(NamedTuple):
    """A direct branch to foreign code: where it stands, its bytes and where it leads."""

    address: int
    size: int
    target: int


def stray_branches(
    code: Code,
    symbols: Symbols,
    landing: Landing,
    known: U64,
    dead: tuple[Dead, ...] = (),
    *,
    calls_modules: bool = False,
) -> tuple[Stray, ...]:
    """Branches of 32 bits whose target is executable and not lawful.

    Args:
        code: the text.
        symbols: symbols of its object, to know where functions begin.
        landing: where branches may lead.
        known: addresses that are patch sites and judged as such, sorted.
        dead: code that nothing runs any more, and where it may lead.
        calls_modules: whether the kernel's text may lead to modules anywhere, since its static calls are not known.
    """
    owner = "" if calls_modules else code.owner
    suspects: dict[int, Stray] = {}
    own = landing.kernel if code.owner == KERNEL else landing.modules
    for opcode, at in _outward(code, own):
        target = _targets(code, at, opcode)
        address = np.uint64(code.start) + at.astype(np.uint64)
        odd = np.flatnonzero(landing.foreign(owner, target))
        odd = odd[~among(address[odd], known) & code.holds(address[odd], opcode + 4)]
        for part in dead:
            odd = odd[~part.explains(address[odd], target[odd])]
        for row in odd.tolist()[:_MAX_CHECKED]:
            found = Stray(int(address[row]), opcode + 4, int(target[row]))
            if not _is_own(code, symbols, found):
                suspects[found.address] = found
    reached = set(_reached(code, symbols, sorted(suspects))) if len(symbols) else set()
    return tuple(suspects[address] for address in sorted(suspects) if address in reached)


def _outward(code: Code, own: Ranges) -> Iterator[tuple[int, Positions]]:
    """Length of the opcode, and offsets of all bytes that may begin a branch to other places than functions of `own`.

    In pieces that stay in the processor's cache, which makes it several times faster.
    """
    found: dict[int, list[Positions]] = {1: [np.array([], np.intp)], 2: [np.array([], np.intp)]}
    view = _distances(code)
    holes = _holes(code, own)
    for low in range(0, len(view) - 2, _PIECE):
        piece = code.bytes[low : min(low + _PIECE, len(view) - 2)]
        long = np.flatnonzero(piece & _PAIR == CALL) + low
        conditional = np.flatnonzero(piece == _JCC[0]) + low
        conditional = conditional[code.bytes[conditional + 1] & 0xF0 == _JCC[1]]
        for opcode, at in ((1, long), (2, conditional)):
            leads = at + opcode + 4 + view[at + opcode]
            out = (leads < 0) | (leads >= len(code.data))
            out |= holes[leads.clip(0, len(code.data)) >> _GRAIN]
            found[opcode].append(at[out])
    for opcode, parts in found.items():
        yield opcode, np.concatenate(parts)


def _holes(code: Code, own: Ranges) -> Mask:
    """For each eight bytes of the text whether some of them belong to no function of `own`."""
    count = (len(code.data) >> _GRAIN) + 2
    lows = -(-code.offsets(own.low).clip(0, len(code.data)) >> _GRAIN)
    highs = code.offsets(own.high).clip(0, len(code.data)) >> _GRAIN
    kept = lows < highs
    edges = np.bincount(lows[kept], minlength=count) - np.bincount(highs[kept], minlength=count)
    found: Mask = np.cumsum(edges) == 0
    return found


def _is_own(code: Code, symbols: Symbols, stray: Stray) -> bool:
    """Whether a branch stays within its function, or leaves the cold part of one.

    Linkers keep the code of a weak function that another one replaced, without a symbol; its cold part has one.
    """
    source, target = symbols.nearest(stray.address), symbols.nearest(stray.target)
    if source is None or target is None or not code.start <= stray.target < code.end:
        return False
    return source == target or _COLD in symbols.names[source]


def _distances(code: Code) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
    """The signed 32-bit number at every byte."""
    return np.ndarray((max(0, len(code.data) - 3),), "<i4", code.data, 0, (1,))


def _targets(code: Code, at: Positions, opcode: int) -> U64:
    distance = _distances(code)[at + opcode].astype(np.int64)
    return moved(np.uint64(code.start) + at.astype(np.uint64), distance + (opcode + 4))


def _reached(code: Code, symbols: Symbols, addresses: list[int]) -> Iterator[int]:
    """Those of `addresses` at which an instruction begins, as a disassembly from the symbol before shows."""
    by_function: dict[int, list[int]] = {}
    for address in addresses:
        position = symbols.nearest(address)
        start = code.start if position is None else max(code.start, symbols.addresses[position])
        if address - start <= _MAX_FUNCTION:
            by_function.setdefault(start, []).append(address)
    for start, wanted in by_function.items():
        last = max(wanted)
        if not code.holds(np.array([start], np.uint64), last - start + 1)[0]:
            continue
        open_ones = set(wanted)
        for step in each_step(code.piece(start, last - start + 16), start):
            if step.address in open_ones:
                yield step.address
            if step.address >= last:
                break
