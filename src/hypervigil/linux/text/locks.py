"""Lock prefixes, which a kernel on one processor turns into harmless ones (arch/x86/kernel/alternative.c).

``alternatives_smp_lock`` and ``alternatives_smp_unlock`` exchange f0 and 3e where either stands and leave other bytes
alone: an assembler may put an operand size prefix first.
"""

import numpy as np

from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import Sites, Table, places_in, sizes

SECTION = ".smp_locks"

_LOCK, _DS, _SIZE = 0xF0, 0x3E, 0x66


def lock_sites(place: Place) -> Sites:
    """Every prefix must be f0 (lock) or 3e (ds)."""
    address = places_in(place.code, place.tables.get(SECTION, Table(0, b"")), 2)
    rows = place.code.rows(address, 2)
    first = np.where(rows[:, 0] == _SIZE, rows[:, 1], rows[:, 0])

    def expected(row: int) -> tuple[bytes, ...]:
        del row
        return (bytes([_LOCK]), bytes([_DS]))

    return Sites(
        kind="lock prefix",
        address=address,
        size=sizes(len(address), 1),
        states=(("lock", first == _LOCK), ("unlocked", first == _DS)),
        legal="f0 or 3e",
        expected=expected,
    )
