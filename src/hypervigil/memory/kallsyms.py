"""A decoded symbol table as the kernel's symbols; what is lost of it is told otherwise where that can be done.

Two things outside of kallsyms say where symbols are: the top page table, which maps itself and so shows where
``init_top_pgt`` is, and VMCOREINFO. What they say is used only for what is lost, and only where it fits the rest.
"""

from collections.abc import Mapping

import msgspec
import numpy as np

from hypervigil.core.errors import MissingDescription
from hypervigil.core.units import VirtAddr
from hypervigil.decode.kallsyms import KallsymsTable
from hypervigil.memory.symbols import Losses, Symbols

_TOLD = ("_stext", "init_uts_ns")
_TOP_TABLES = ("init_top_pgt", "swapper_pg_dir")
_TOP = (1 << 64) - 1


def completed(table: KallsymsTable, top: VirtAddr, told: Mapping[str, VirtAddr]) -> KallsymsTable:
    """A table with what is lost of it, as far as it can be told otherwise.

    Args:
        table: as it was decoded.
        top: virtual address of the top page table.
        told: symbols of VMCOREINFO.

    Raises:
        MissingDescription: its relative base is lost, and cannot be told.
    """
    return _with_names(_with_base(table, top, told) if table.base_lost else table, told)


def _with_base(table: KallsymsTable, top: VirtAddr, told: Mapping[str, VirtAddr]) -> KallsymsTable:
    names = table.by_name()
    place = next((names[name][0] for name in _TOP_TABLES if name in names), None)
    if place is None:
        raise MissingDescription(f"its relative base is lost, and of {len(names):,} names none is the top page table's")
    placed = table.rebased(VirtAddr((top - int(table.addresses[place])) % (1 << 64)))
    for name in _TOLD:
        if name in told and name in names and int(placed.addresses[names[name][0]]) != told[name]:
            raise MissingDescription(
                f"its relative base is lost, and by the page tables {name} is not where VMCOREINFO says"
            )
    return placed


def _with_names(table: KallsymsTable, told: Mapping[str, VirtAddr]) -> KallsymsTable:
    """The table with the names that VMCOREINFO has for symbols whose name is lost."""
    nameless = [i for i, name in enumerate(table.names) if not name and not table.placeless[i]]
    wanted = {told[name]: name for name in _TOLD if name in told and nameless and name not in table.names}
    names = list(table.names)
    for position in nameless:
        names[position] = wanted.pop(VirtAddr(int(table.addresses[position])), "")
    return msgspec.structs.replace(table, names=tuple(names)) if nameless else table


def symbols_of(table: KallsymsTable, source: str) -> Symbols:
    """A decoded table as symbols; those whose address is lost or contradicts can only be asked for in vain."""
    if not table.placeless.any() and not any(one.lost for one in table.contradictions):
        return Symbols(table.addresses, table.names, table.types, source)
    kept = np.flatnonzero(~table.placeless)
    names, letters = [table.names[i] for i in kept.tolist()], "".join(table.types[i] for i in kept.tolist())
    return Symbols(table.addresses[kept], names, letters, source, losses=_losses(table))


def _losses(table: KallsymsTable) -> Losses:
    placeless = np.flatnonzero(table.placeless)
    ranges: list[tuple[int, int]] = []
    for run in np.split(placeless, np.flatnonzero(np.diff(placeless) > 1) + 1) if len(placeless) else ():
        low = int(table.addresses[run[0] - 1]) if run[0] else 0
        high = int(table.addresses[run[-1] + 1]) if run[-1] + 1 < len(table.names) else _TOP
        ranges.append((min(low, high), max(low, high)))
    order = None
    if table.sequence is not None:
        order = tuple(table.names[at] or None if 0 <= at < len(table.names) else None for at in table.sequence.tolist())
    return Losses(tuple(table.names[i] for i in placeless.tolist()), _merged(ranges), order, "" in table.names)


def _merged(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return tuple(found)
