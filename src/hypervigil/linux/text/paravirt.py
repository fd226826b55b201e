"""Calls through pv_ops that were made direct, or replaced by the instruction itself (arch/x86/kernel/paravirt.c).

``struct paravirt_patch_site``: a pointer to the call, its index into ``pv_ops`` and its length. Gone with
60bc276b129e "x86/paravirt: Switch mixed paravirt/alternative calls to alternatives" (6.8), which made them
alternatives.
"""

import numpy as np

from hypervigil.linux.text.code import Code, branch_targets, gather
from hypervigil.linux.text.instructions import meaning
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import CALL, JMP, Sites, Table, branch

SECTION = ".parainstructions"

_ENTRY = np.dtype([("instr", "<u8"), ("type", "u1"), ("len", "u1"), ("padding", "V6")])
_USED = 10
_INLINE = (
    *(b"\xfa", b"\xfb", b"\x9c\x58", b"\x57\x9d", b"\x48\x89\xf8", b"\x89\xf8", b"\x0f\x09", b"\x0f\x01\xf8"),
    *(b"\x0f\x20\xd0", b"\x0f\x20\xd8", b"\x0f\x22\xdf", b"\xc6\x07\x00", b"\x31\xc0", b"\x48\xcf"),
    *(b"\x0f\x01\xf8\x48\x0f\x07", b"\x0f\x0b"),
)
"""cli, sti, pushf and pop, push and popf, mov, wbinvd, swapgs, cr2, cr3, unlocking, zero, iret, sysret, ud2
(arch/x86/kernel/paravirt_patch.c)."""
_SITE = 5


def _is_inline(place: Place, original: Code, address: int, size: int) -> bool:
    """Whether a place is as built, empty, or holds an instruction that stands for a call, padded."""
    found = place.code.piece(address, size)
    if found == original.piece(address, size) or not meaning(found, address):
        return True
    return any(found.startswith(text) and not meaning(found[len(text) :], address) for text in _INLINE)


def _entries(table: Table) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    """All entries; each begins at a multiple of its size, so that the last one may lack what fills it up."""
    whole = len(table.data) + (-len(table.data) % _ENTRY.itemsize) * (len(table.data) % _ENTRY.itemsize >= _USED)
    data = table.data.ljust(whole, b"\0")
    return np.frombuffer(data, _ENTRY, len(data) // _ENTRY.itemsize)


def paravirt_sites(place: Place) -> Sites:
    """A direct call must lead to the function that pv_ops names.

    Instructions that stand for it are known, but judged only where what was built is known too: an alternative may
    have replaced them.
    """
    entries = _entries(place.tables.get(SECTION, Table(0, b"")))
    operations = place.symbol("pv_ops")
    address, size = entries["instr"].copy(), entries["len"].astype(np.int64)
    kept = place.code.holds(address, size) & (size > 0) & (operations is not None)
    address, size, kind = address[kept], size[kept], entries["type"][kept].astype(np.uint64)
    rows = place.code.rows(address, _SITE)
    slots = gather(place.system.kernel.space, np.uint64(operations or 0) + kind * np.uint64(8), 8)
    function = slots.u64()
    direct = (size >= _SITE) & ((rows[:, 0] == CALL) | (rows[:, 0] == JMP))
    inline = ~direct
    if place.original is not None:
        inline = np.array(
            [_is_inline(place, place.original, *one) for one in zip(address.tolist(), size.tolist(), strict=True)],
            np.bool_,
        )
    led = direct & ((branch_targets(address, rows, 1) == function) | ~slots.seen)

    def expected(row: int) -> tuple[bytes, ...]:
        return (branch(CALL, int(address[row]), int(function[row])),)

    return Sites(
        kind="paravirt",
        address=address,
        size=size,
        states=(("direct", led), ("inline", inline)),
        legal="a direct call of the function that pv_ops names, or instructions instead of it",
        expected=expected,
        unseen=(("pv_ops", "not in the image"),) if not slots.seen.all() else (),
    )
