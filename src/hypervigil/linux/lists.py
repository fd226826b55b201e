"""The kernel's linked structures, walked with bounds.

Linux include/linux/list.h, include/linux/rbtree.h, include/linux/rculist_nulls.h. An attacker may make a list
circular anywhere, let it point to itself, or lead it into the wild; each walk ends all the same, and says in a gap
where it could not go on.
"""

from collections.abc import Iterator

from hypervigil.core.errors import MissingMemory
from hypervigil.core.facts import Gap, Observed
from hypervigil.core.units import VirtAddr
from hypervigil.memory.space import AddressSpace

MAX_ENTRIES = 1 << 20
"""How many entries a list may have before it counts as forged."""

_POINTER = 8
_KERNEL_HALF = 1 << 63
_RB_COLOUR = 3


def walk_list(space: AddressSpace, head: int, offset: int, what: str) -> Observed[int]:
    """Addresses of the structures on a ``struct list_head`` list, in order.

    Args:
        space: the kernel's memory.
        head: virtual address of the list's head.
        offset: byte offset of the list's node in each structure.
        what: the list's name, for gaps.
    """
    found: list[int] = []
    seen = {head}
    node, before = head, head
    while True:
        try:
            node = space.u64(VirtAddr(node))
        except MissingMemory as fault:
            return _broken(found, what, str(fault))
        if node == head:
            return Observed(tuple(found))
        if node in seen:
            return _broken(found, what, f"it turns back to {node:#x} without reaching its head")
        if not node & _KERNEL_HALF or len(found) >= MAX_ENTRIES:
            return _broken(found, what, f"it leads to {node:#x}, which is no address of the kernel")
        if _previous(space, node) != before:
            return _broken(found, what, f"its entry at {node:#x} does not point back")
        seen.add(node)
        found.append(node - offset)
        before = node


def walk_chain(space: AddressSpace, first: int, offset: int, what: str) -> Observed[int]:
    """Addresses of structures that are linked by a single pointer at `offset` and end with NULL.

    Args:
        space: the kernel's memory.
        first: address of the first structure; 0 for an empty chain.
        offset: byte offset of the pointer to the next structure.
        what: the chain's name, for gaps.
    """
    found: list[int] = []
    seen: set[int] = set()
    while first:
        if first in seen or len(found) >= MAX_ENTRIES or not first & _KERNEL_HALF:
            return _broken(found, what, f"it turns back to or leads to {first:#x}")
        seen.add(first)
        found.append(first)
        try:
            first = space.u64(VirtAddr(first + offset))
        except MissingMemory as fault:
            found.pop()
            return _broken(found, what, str(fault))
    return Observed(tuple(found))


def walk_tree(space: AddressSpace, root: int, offset: int, what: str) -> Observed[int]:
    """Addresses of the structures in a red-black tree, in no order.

    Args:
        space: the kernel's memory.
        root: address of the root ``struct rb_node``; 0 for an empty tree.
        offset: byte offset of the node in each structure.
        what: the tree's name, for gaps.
    """
    found: list[int] = []
    gaps: list[Gap] = []
    seen: set[int] = set()
    waiting = [(root, 0)]
    while waiting:
        node, parent = waiting.pop()
        if not node:
            continue
        if node in seen or not node & _KERNEL_HALF or len(found) >= MAX_ENTRIES:
            gaps.append(Gap(what, f"it leads twice or wildly to {node:#x}"))
            continue
        seen.add(node)
        try:
            above, right, left = _words(space, node, 3)
        except MissingMemory as fault:
            gaps.append(Gap(what, str(fault)))
            continue
        if above & ~_RB_COLOUR != parent:
            gaps.append(Gap(what, f"its node at {node:#x} names another parent"))
            continue
        found.append(node - offset)
        waiting += [(right, node), (left, node)]
    return Observed(tuple(found), tuple(gaps))


def _words(space: AddressSpace, address: int, count: int) -> Iterator[int]:
    data = space.read(VirtAddr(address), count * _POINTER)
    return (int.from_bytes(data[at : at + _POINTER], "little") for at in range(0, len(data), _POINTER))


def _previous(space: AddressSpace, node: int) -> int | None:
    try:
        return space.u64(VirtAddr(node + _POINTER))
    except MissingMemory:
        return None


def _broken(found: list[int], what: str, why: str) -> Observed[int]:
    return Observed(tuple(found), (Gap(what, f"could not be walked to its end: {why}"),))
