"""Instructions that trap on purpose: BUG and WARN (lib/bug.c, arch/x86/include/asm/bug.h).

``struct bug_entry`` begins with the distance to the trapping instruction, ud2 or ud1, and ends with its flags. Since
7.0 an entry may have arguments (BUGFLAG_ARGS); then it is the static call of ``__WARN_trap`` behind it that traps,
which is judged as such.
"""

import numpy as np

from hypervigil.linux.text.code import is_any, moved
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import Sites, Table, column, sizes

SECTION = "__bug_table"

_UD2 = b"\x0f\x0b"
_UD1 = (b"\x67\x48\x0f\xb9", b"\x48\x0f\xb9", b"\x67\x0f\xb9", b"\x0f\xb9")
_ARGUMENTS = 1 << 4
_LEAST_ENTRY = 12


def bug_sites(place: Place) -> Sites:
    """Every BUG and WARN must still trap.

    Raises:
        MissingDescription: the type of the table's entries is not known.
    """
    table = place.tables.get(SECTION, Table(0, b""))
    width = place.system.kernel.type("struct bug_entry").size or _LEAST_ENTRY
    address = moved(*column(table, width, 0))
    flags = np.frombuffer(table.data, np.uint8, len(address) * width).reshape(-1, width)[:, -2]
    address = address[place.code.holds(address, len(_UD2)) & (flags & _ARGUMENTS == 0)]
    rows = place.code.rows(address, 5)

    def expected(row: int) -> tuple[bytes, ...]:
        del row
        return (_UD2,)

    return Sites(
        kind="bug",
        address=address,
        size=sizes(len(address), len(_UD2)),
        states=(("ud2", is_any(rows, _UD2)), ("ud1", is_any(rows, *_UD1))),
        legal="ud2 or ud1",
        expected=expected,
    )
