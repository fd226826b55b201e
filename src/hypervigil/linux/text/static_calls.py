"""Static calls: calls whose target is written into them (kernel/static_call_inline.c, arch/x86/kernel/static_call.c).

A key (``struct static_call_key``) holds the function; every site of it is a direct call or tail jump to exactly that
function, and so is its trampoline. 5.10: 9183c3f9ed71 "static_call: Add inline static call infrastructure". Special
values: no function makes a call a nop and a tail call a return; ``__static_call_return0`` makes a call
``xor %eax, %eax`` (3f2a8fc4b15d, 5.12); conditional tail calls since 923510c88d2b "x86/static_call: Add support for
Jcc tail-calls" (6.3 and stable kernels); ``__WARN_trap`` makes it an instruction that traps (7.0).
"""

import numpy as np

from hypervigil.linux.text.code import U8, U64, Mask, branch_targets, distinct, gather, is_any, moved
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import CALL, JMP, NOP5, RET, Sites, Table, branch, column, sizes
from hypervigil.linux.text.thunks import counted
from hypervigil.memory.symbols import Symbols

SECTION = ".static_call_sites"

_ENTRY = 8
_KEY_AT = 4
_FLAGS = 3
_TAIL = 1
_SITE = 5
_JCC = (0x0F, 0x80)
_RETURN0 = (b"\x66\x66\x48\x31\xc0", b"\x2e\x2e\x2e\x31\xc0", b"\x90\x31\xc0\x0f\x1f")
_TRAP = b"\x67\x48\x0f\xb9\x3a"
_TRAMPOLINE, _KEY = "__SCT__", "__SCK__"


def static_call_sites(place: Place) -> Sites:
    """Every site must be the direct call to its key's function, or what stands for no function."""
    code = place.code
    address, key, tail = _entries(place.tables.get(SECTION, Table(0, b"")))
    kept = code.holds(address, _SITE)
    address, key, tail = address[kept], _keys(place, key[kept]), tail[kept]
    keys = gather(place.system.kernel.space, key, 8)
    function = keys.u64()
    rows = code.rows(address, _SITE + 1)
    to_function = _leads_to(address, rows, function, tail=tail)
    calls = (rows[:, 0] == CALL) & ~tail
    to_function |= calls & counted(place.system.kernel.space, branch_targets(address, rows, 1), function)
    return0 = function == np.uint64(place.symbol("__static_call_return0") or 1)
    trap = function == np.uint64(place.symbol("__WARN_trap") or 1)
    nothing = (function == 0) & keys.seen
    unseen = int(np.count_nonzero(~keys.seen))
    formed = _is_formed(place, address, rows)

    def expected(row: int) -> tuple[bytes, ...]:
        if not function[row]:
            return (_returns(place, int(address[row])) or b"\xc3" + b"\xcc" * 4,) if tail[row] else (NOP5[0],)
        direct = branch(JMP if tail[row] else CALL, int(address[row]), int(function[row]))
        return (direct, *(_RETURN0[:2] if return0[row] else ()))

    return Sites(
        kind="static call",
        address=address,
        size=sizes(len(address), _SITE) + _is_conditional(rows),
        states=(
            ("direct", to_function & formed & (function != 0)),
            ("of an unseen key", ~keys.seen),
            ("nop", nothing & ~tail & is_any(rows, *NOP5)),
            ("return", nothing & tail & formed & _is_return(place, address, rows)),
            ("zero", return0 & ~tail & is_any(rows, *_RETURN0)),
            ("trap", trap & ~tail & is_any(rows, _TRAP)),
        ),
        legal="a direct branch to the function of its key",
        expected=expected,
        unseen=((f"{unseen} keys of static calls of {code.owner}", "not in the image"),) if unseen else (),
    )


def static_call_keys(place: Place) -> Sites:
    """The function of every key that a site of this text uses must lie in text; the site is the key, which is data."""
    _, key, _ = _entries(place.tables.get(SECTION, Table(0, b"")))
    key = distinct(_keys(place, key))
    keys = gather(place.system.kernel.space, key, 8)
    function = keys.u64()
    lawful = ~place.registry.landing.refuses("", function)

    def expected(row: int) -> tuple[bytes, ...]:
        del row
        return ()

    return Sites(
        kind="static call key",
        address=key,
        size=sizes(len(key), 8),
        states=(("function", lawful & (function != 0)), ("nothing", function == 0)),
        legal="a function of the kernel or of a module",
        expected=expected,
    )


def static_call_trampolines(place: Place) -> Sites:
    """Every trampoline must jump to its key's function, or return where there is none."""
    found = np.array(trampolines(place, place.symbols), np.uint64).reshape(-1, 2)
    found = found[place.code.holds(found[:, 0], _SITE)]
    address = found[:, 0].copy()
    keys = gather(place.system.kernel.space, found[:, 1].copy(), 8)
    function = keys.u64()
    rows = place.code.rows(address, _SITE)
    target = branch_targets(address, rows, 1)
    direct = (rows[:, 0] == JMP) & (target == function) & (function != 0)
    none = (function == 0) & keys.seen & _is_return(place, address, rows)
    unseen = int(np.count_nonzero(~keys.seen))

    def expected(row: int) -> tuple[bytes, ...]:
        if function[row]:
            return (branch(JMP, int(address[row]), int(function[row])),)
        return (_returns(place, int(address[row])) or b"\xc3" + b"\xcc" * 4,)

    return Sites(
        kind="static call trampoline",
        address=address,
        size=sizes(len(address), _SITE),
        states=(("jump", direct), ("return", none), ("of an unseen key", ~keys.seen)),
        legal="a jump to the function of its key, or a return where there is none",
        expected=expected,
        unseen=((f"{unseen} keys of trampolines of {place.code.owner}", "not in the image"),) if unseen else (),
    )


def _entries(table: Table) -> tuple[U64, U64, Mask]:
    """Address and key of every entry, and whether it is a tail call."""
    places, distances = column(table, _ENTRY, 0)
    address = moved(places, distances)
    key = moved(*column(table, _ENTRY, _KEY_AT))
    flags = key & np.uint64(_FLAGS)
    return address, key & ~np.uint64(_FLAGS), (flags & np.uint64(_TAIL)) != 0


def _keys(place: Place, key: U64) -> U64:
    """The keys of sites; as a module is built, it names the trampoline of a key that is not exported.

    73f44fe19d35 "static_call: Allow module use without exposing static_call_key" (5.12): the loader looks the key up.
    """
    if place.original is None:
        return key
    named = {
        at: own for symbols in (place.symbols, place.system.kernel.symbols) for at, own in trampolines(place, symbols)
    }
    return np.array([named.get(one, one) for one in key.tolist()], np.uint64)


def _leads_to(address: U64, rows: U8, function: U64, *, tail: Mask) -> Mask:
    first = rows[:, 0]
    near = branch_targets(address, rows, 1) == function
    found: Mask = (first == np.where(tail, JMP, CALL)) & near
    found |= tail & _is_conditional(rows) & (branch_targets(address, rows, 2) == function)
    return found


def _is_conditional(rows: U8) -> Mask:
    """Conditional jumps, of six bytes."""
    found: Mask = (rows[:, 0] == _JCC[0]) & (rows[:, 1] & 0xF0 == _JCC[1])
    return found


def _is_formed(place: Place, address: U64, rows: U8) -> Mask:
    """Sites that are conditional exactly where they were built so, and by the same condition."""
    if place.original is None:
        return np.ones(len(rows), np.bool_)
    built = place.original.rows(address, _SITE + 1)
    conditional = _is_conditional(rows) | _is_conditional(built)
    found: Mask = ~conditional | (rows[:, :2] == built[:, :2]).all(axis=1)
    return found


def _is_return(place: Place, address: U64, rows: U8) -> Mask:
    """A return, or a jump to the thunk that stands for it; a conditional one leads to such a return."""
    found: Mask = rows[:, 0] == RET
    target = branch_targets(address, rows, 1)
    for thunk in place.registry.thunks.returns:
        found |= (rows[:, 0] == JMP) & (target == np.uint64(thunk))
    away = place.symbol("__static_call_return")
    if away is not None and rows.shape[1] > _SITE:
        found |= _is_conditional(rows) & (branch_targets(address, rows, 2) == np.uint64(away))
    return found


def _returns(place: Place, address: int) -> bytes:
    return next((branch(JMP, address, thunk) for thunk in place.registry.thunks.returns), b"")


def trampolines(place: Place, symbols: Symbols) -> list[tuple[int, int]]:
    """``(trampoline, key)`` of each trampoline among `symbols` whose key is known by name."""
    inside = range(len(symbols))
    low, high = symbols.find("__static_call_text_start"), symbols.find("__static_call_text_end")
    if low is not None and high is not None:
        inside = symbols.between(low, high)
    found = []
    for position in inside:
        name = symbols.names[position]
        if name.startswith(_TRAMPOLINE):
            key = place.symbol(_KEY + name.removeprefix(_TRAMPOLINE))
            if key is not None:
                found.append((symbols.addresses[position], int(key)))
    return found
