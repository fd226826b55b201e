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
    *((b"\xfa", "irq_disable"), (b"\xfb", "irq_enable"), (b"\x9c\x58", "save_fl"), (b"\x57\x9d", "restore_fl")),
    *((b"\x48\x89\xf8", "ident_64"), (b"\x89\xf8", "ident_32"), (b"\x0f\x09", "wbinvd"), (b"\x0f\x01\xf8", "swapgs")),
    *((b"\x0f\x20\xd0", "read_cr2"), (b"\x0f\x20\xd8", "read_cr3"), (b"\x0f\x22\xdf", "write_cr3")),
    *((b"\xc6\x07\x00", "queued_spin_unlock"), (b"\x31\xc0", "vcpu_is_preempted"), (b"\x48\xcf", "iret")),
    *((b"\x0f\x01\xf8\x48\x0f\x07", "sysret64"), (b"", "paravirt_nop")),
)
"""Instructions, and what is in the name of the only function that they stand for (arch/x86/kernel/paravirt_patch.c)."""

_TRAP = b"\x0f\x0b"
"""What stands for no function."""

_SITE = 5


def _is_inline(place: Place, original: Code, address: int, size: int, function: int | None) -> bool:
    """Whether a place is as built, or holds what stands for a call of a function, padded.

    Args:
        place: the object.
        original: its text as built.
        address: of the place.
        size: of the place.
        function: what pv_ops names; None where that is not known.
    """
    found = place.code.piece(address, size)
    if found == original.piece(address, size):
        return True
    if function is not None and not function:
        return found.startswith(_TRAP)
    target = None if function is None else place.system.target(function)
    names = () if target is None else (target.symbol, *target.aliases)
    return any(
        found.startswith(text)
        and not meaning(found[len(text) :], address)
        and (target is None or any(part in name for name in names))
        for text, part in _INLINE
    )


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
        known = [one if seen else None for one, seen in zip(function.tolist(), slots.seen.tolist(), strict=True)]
        places = zip(address.tolist(), size.tolist(), known, strict=True)
        inline = np.array([_is_inline(place, place.original, *one) for one in places], np.bool_)
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
