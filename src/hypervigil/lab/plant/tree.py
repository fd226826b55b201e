"""The latched red-black tree of module addresses, rebuilt without one module.

Source: include/linux/rbtree_latch.h (two trees, a node in each), kernel/module/tree_lookup.c
(`struct mod_tree_node` is the module's address and the latch node), include/linux/rbtree.h (bit 0 is black).
"""

import struct

from hypervigil.core.errors import UsageError
from hypervigil.core.units import VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.machine import Machine
from hypervigil.lab.plant.change import Write

_NODE = struct.Struct("<QQQ")
_FIRST_ROOT = 8
_MOST = 4096
_BLACK = 1


def without_module(machine: Machine, this: VirtAddr) -> list[Write]:
    """The writes that take every node of a module off both trees of `mod_tree`.

    Raises:
        NotApplicable: the module is not in the tree.
    """
    head = machine.symbols.find("mod_tree").address
    writes: list[Write] = []
    for half in range(2):
        root = VirtAddr(head + _FIRST_ROOT + 8 * half)
        nodes = _in_order(machine, machine.memory.pointer(root))
        kept = [n for n in nodes if machine.memory.pointer(VirtAddr(n - _NODE.size * half - 8)) != this]
        if len(kept) == len(nodes):
            raise NotApplicable("the module is not in mod_tree")
        writes += _rebuilt(root, kept)
        writes += [_write(n, n, 0, 0) for n in nodes if n not in kept]  # RB_CLEAR_NODE
    return writes


def _in_order(machine: Machine, root: VirtAddr) -> list[VirtAddr]:
    found: list[VirtAddr] = []
    path: list[VirtAddr] = []
    node = root
    while (node or path) and len(found) + len(path) < _MOST:
        if node:
            path.append(node)
            node = machine.memory.pointer(VirtAddr(node + 16))
        else:
            found.append(path.pop())
            node = machine.memory.pointer(VirtAddr(found[-1] + 8))
    if path or node:
        raise UsageError("mod_tree does not end")
    return found


def _rebuilt(root: VirtAddr, nodes: list[VirtAddr]) -> list[Write]:
    """A balanced tree: all levels black, save the deepest where it is not full."""
    full = (len(nodes) + 1).bit_length() - 1
    writes: list[Write] = []

    def build(low: int, high: int, parent: int, depth: int) -> int:
        if low >= high:
            return 0
        middle = (low + high) // 2
        node = nodes[middle]
        left = build(low, middle, node, depth + 1)
        right = build(middle + 1, high, node, depth + 1)
        writes.append(_write(node, parent | (_BLACK if depth < full else 0), right, left))
        return node

    top = build(0, len(nodes), 0, 0)
    return [*writes, Write("mod_tree root", root, struct.pack("<Q", top))]


def _write(node: VirtAddr, parent_and_colour: int, right: int, left: int) -> Write:
    return Write("mod_tree node", node, _NODE.pack(parent_and_colour, right, left))
