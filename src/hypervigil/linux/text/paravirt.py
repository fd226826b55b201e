"""Calls through pv_ops that were made direct, or replaced by the instruction itself (arch/x86/kernel/paravirt.c).

``struct paravirt_patch_site``: a pointer to the call, its index into ``pv_ops`` and its length. Gone with
60bc276b129e "x86/paravirt: Switch mixed paravirt/alternative calls to alternatives" (6.8), which made them
alternatives.
"""

import numpy as np

from hypervigil.linux.text.code import branch_targets, gather
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import CALL, JMP, Sites, Table, branch

SECTION = ".parainstructions"

_ENTRY = np.dtype([("instr", "<u8"), ("type", "u1"), ("len", "u1"), ("padding", "V6")])
_SITE = 5


def paravirt_sites(place: Place) -> Sites:
    """A direct call must lead to the function that pv_ops names; instructions that stand for it are not judged."""
    table = place.tables.get(SECTION, Table(0, b""))
    entries = np.frombuffer(table.data, _ENTRY, len(table.data) // _ENTRY.itemsize)
    operations = place.symbol("pv_ops")
    address, size = entries["instr"].copy(), entries["len"].astype(np.int64)
    kept = place.code.holds(address, size) & (size > 0) & (operations is not None)
    address, size, kind = address[kept], size[kept], entries["type"][kept].astype(np.uint64)
    rows = place.code.rows(address, _SITE)
    slots = gather(place.system.kernel.space, np.uint64(operations or 0) + kind * np.uint64(8), 8)
    function = slots.u64()
    direct = (size >= _SITE) & ((rows[:, 0] == CALL) | (rows[:, 0] == JMP))
    led = direct & ((branch_targets(address, rows, 1) == function) | ~slots.seen)

    def expected(row: int) -> tuple[bytes, ...]:
        return (branch(CALL, int(address[row]), int(function[row])),)

    return Sites(
        kind="paravirt",
        address=address,
        size=size,
        states=(("direct", led), ("inline", ~direct)),
        legal="a direct call of the function that pv_ops names, or instructions instead of it",
        expected=expected,
        unseen=(("pv_ops", "not in the image"),) if not slots.seen.all() else (),
    )
