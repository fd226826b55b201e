"""The kernel's sparse arrays (include/linux/xarray.h), under idr and pid tables."""

from collections.abc import Iterator

from hypervigil.core.errors import MissingMemory
from hypervigil.core.facts import Gap, Observed
from hypervigil.core.units import VirtAddr
from hypervigil.linux.members import offset_of
from hypervigil.memory.kernel import Kernel

_INTERNAL = 2
_TAG = 3
_SLOTS = 64
_FIRST_NODE = 4096
_MAX_NODES = 1 << 16


def xarray_entries(kernel: Kernel, head: int, what: str) -> Observed[int]:
    """Pointers stored in an array, in the order of their indices.

    Args:
        kernel: the kernel.
        head: the value of ``xa_head``.
        what: the array's name, for gaps.

    Raises:
        MissingDescription: the type of its nodes is not known.
    """
    slots_at = offset_of(kernel.type("struct xa_node"), "slots")
    found: list[int] = []
    gaps: list[Gap] = []
    seen: set[int] = set()
    waiting = [head]
    while waiting:
        entry = waiting.pop()
        if not _is_node(entry):
            if entry and not entry & 1 and not entry & _INTERNAL:
                found.append(entry)
            continue
        node = entry - _INTERNAL
        if node in seen or len(seen) >= _MAX_NODES:
            gaps.append(Gap(what, f"it leads twice to its node at {node:#x}"))
            continue
        seen.add(node)
        try:
            waiting += reversed(list(_slots(kernel, node + slots_at)))
        except MissingMemory as fault:
            gaps.append(Gap(what, str(fault)))
    return Observed(tuple(found), tuple(gaps))


def _is_node(entry: int) -> bool:
    return entry & _TAG == _INTERNAL and entry > _FIRST_NODE


def _slots(kernel: Kernel, address: int) -> Iterator[int]:
    data = kernel.space.read(VirtAddr(address), 8 * _SLOTS)
    return (int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8))
