"""Return sites: returns that jump to a thunk where the processor needs one (arch/x86/kernel/alternative.c).

``apply_returns``: 15e67227c49a "x86: Undo return-thunk damage" (5.19 and stable kernels). Built as a jump to
``__x86_return_thunk``, a site becomes a jump to the chosen thunk or a plain return filled up with int3.
"""

from hypervigil.linux.text.code import branch_targets, is_any
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import JMP, Sites, Table, branch, places_in, sizes

SECTION = ".return_sites"

_SITE = 5
_PLAIN = b"\xc3\xcc\xcc\xcc\xcc"


def return_sites(place: Place) -> Sites:
    """Every return must be plain, or jump to the thunk that is built in or the one that was chosen."""
    address = places_in(place.code, place.tables.get(SECTION, Table(0, b"")), _SITE)
    rows = place.code.rows(address, _SITE)
    target = branch_targets(address, rows, 1)
    jumps = rows[:, 0] == JMP
    thunked = rows[:, 0] != rows[:, 0]
    for thunk in place.registry.thunks.returns:
        thunked |= jumps & (target == thunk)

    def expected(row: int) -> tuple[bytes, ...]:
        return (*(branch(JMP, int(address[row]), thunk) for thunk in place.registry.thunks.returns[:1]), _PLAIN)

    return Sites(
        kind="return site",
        address=address,
        size=sizes(len(address), _SITE),
        states=(("plain", is_any(rows, _PLAIN)), ("by thunk", thunked)),
        legal="a plain return or a jump to the return thunk",
        expected=expected,
    )
