"""Which read-only data stays as it was built.

Left out: what becomes read-only only after init (``.data..ro_after_init``, for the kernel between two symbols), and the
unwinder's tables, which the loader of a module sorts together (unwind_module_init). Those two symbols are taken from
the table inside the kernel's file: whoever alters the one in memory could have all left out. Sorted too, but compared
as sets: exception tables (sort_extable) and places to trace (ftrace_process_locs). Lengths in alternatives are evened
out when they are applied (apply_alternatives since 6.11).
"""

from collections.abc import Callable, Iterator

import numpy as np

from hypervigil.core.errors import MissingDescription
from hypervigil.core.units import VirtAddr
from hypervigil.decode.kallsyms import search_kallsyms
from hypervigil.facts.pointers import Section
from hypervigil.linux.members import has
from hypervigil.linux.modules import Module
from hypervigil.linux.system import System
from hypervigil.linux.text.alternatives import SECTION as ALTERNATIVES
from hypervigil.linux.text.code import moved
from hypervigil.linux.text.exceptions import SECTION as EXCEPTIONS
from hypervigil.linux.text.ftrace import SECTION as TRACED
from hypervigil.linux.text.sites import Table, column
from hypervigil.linux.vendor.built import Built
from hypervigil.linux.vendor.comparison import Constant

_UNWINDER = (".orc_unwind", ".orc_unwind_ip")
_EXCEPTION = 12
_AFTER_INIT = ("__start_ro_after_init", "__end_ro_after_init")


def kernel_constants(system: System, built: Built) -> Iterator[Constant]:
    """The kernel's read-only data on both sides of what is read-only after init.

    Raises:
        MissingDescription: its bounds are not known.
    """
    symbols = system.kernel.symbols
    low, high = symbols.address("__start_rodata"), symbols.address("__end_rodata")
    late, end = _after_init(system, built)
    if not low <= late <= end <= high:
        raise MissingDescription("the bounds of data that is read-only after init are not known")
    for part in built.parts:
        if not part.executable and low <= part.address < high:
            yield Constant(part, low, late)
            yield Constant(part, end, high)


def _after_init(system: System, built: Built) -> tuple[int, int]:
    """Half-open range of what is read-only after init, as the file has it; (1, 0) if no file does."""
    for part in built.parts:
        if part.executable:
            continue
        for table in search_kallsyms(part.data, VirtAddr(part.address)).tables:
            names = table.by_name()
            if all(len(names.get(name, ())) == 1 for name in _AFTER_INIT):
                low, high = (int(table.addresses[names[name][0]]) for name in _AFTER_INIT)
                return low, high
    if system.kernel.table is not None:
        return 1, 0
    found = [system.kernel.symbols.find(name) for name in _AFTER_INIT]  # these are from a file
    return found[0] or 1, found[1] or 0


def module_constants(system: System, module: Module, built: Built) -> Iterator[Constant]:
    """A module's read-only sections that are still in memory."""
    for part in built.each_constant():
        area = next((a for a in module.areas if a.start <= part.address < a.end), None)
        kept = area is not None and area.section is Section.RODATA and not area.after_init
        if kept and part.name not in _UNWINDER:
            yield Constant(part, part.address, part.end, _order_of(system, part.name))


def _order_of(system: System, section: str) -> Callable[[Table], bytes] | None:
    if section == EXCEPTIONS:
        relative = has(system.kernel.type("struct exception_table_entry"), "handler")
        return lambda table: _sorted_exceptions(table, relative=relative)
    if section == TRACED:
        return _sorted_places
    if section == ALTERNATIVES:
        width = system.kernel.type("struct alt_instr").size or 0
        return lambda table: _without_lengths(table, width)
    return None


def _sorted_exceptions(table: Table, *, relative: bool) -> bytes:
    """Entries of an exception table as absolute places, sorted.

    The third number was the distance to a handler until 46d28947d987 "x86/extable: Rework the exception table
    mechanics" (5.16), and is no place since.
    """
    columns = [moved(*column(table, _EXCEPTION, offset)) for offset in (0, 4)]
    places, last = column(table, _EXCEPTION, 8)
    columns.append(moved(places, last) if relative else last.astype(np.uint64))
    return np.stack(columns)[:, np.lexsort(columns[::-1])].tobytes()


def _sorted_places(table: Table) -> bytes:
    """Pointers, sorted."""
    return np.sort(np.frombuffer(table.data, "<u8", len(table.data) // 8)).tobytes()


def _without_lengths(table: Table, width: int) -> bytes:
    """Entries of alternatives without the length of the instruction, their last byte but one."""
    count = len(table.data) // width if width else 0
    rows = np.frombuffer(table.data, np.uint8, count * width).reshape(count, width).copy()
    rows[:, -2:-1] = 0
    return rows.tobytes()
