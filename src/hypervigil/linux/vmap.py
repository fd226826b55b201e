"""Areas of vmalloc space that are in use (mm/vmalloc.c).

Kept on ``vmap_area_list`` until 6.8, and on the busy lists of ``vmap_nodes`` since d093602919ad "mm: vmalloc: remove
global vmap_area_root rb-tree" (6.9).
"""

import msgspec

from hypervigil.core.errors import MissingDescription
from hypervigil.core.facts import Gap, Observed
from hypervigil.core.units import VirtAddr
from hypervigil.linux.lists import walk_list
from hypervigil.linux.members import number, offset_of
from hypervigil.memory.kernel import Kernel

_MAX_NODES = 4096


class VmapArea(msgspec.Struct, frozen=True, order=True):
    """A live area: half-open ``[start, end)``, virtual, guard page included."""

    start: int
    end: int


def vmap_areas(kernel: Kernel) -> Observed[VmapArea]:
    """All live areas, sorted.

    Raises:
        MissingDescription: the kernel's symbols or types do not say where they are.
        MissingMemory: the heads of the lists are not in the image.
    """
    offset = offset_of(kernel.type("struct vmap_area"), "list")
    areas: set[VmapArea] = set()
    gaps: list[Gap] = []
    for head in _heads(kernel):
        walked = walk_list(kernel.space, head, offset, "vmap areas")
        gaps += walked.gaps
        for address in walked.items:
            area = kernel.object("struct vmap_area", address)
            areas.add(VmapArea(number(area, "va_start"), number(area, "va_end")))
    return Observed(tuple(sorted(areas)), tuple(gaps))


def _heads(kernel: Kernel) -> list[int]:
    single = kernel.symbols.find("vmap_area_list")
    if single is not None:
        return [single]
    nodes = kernel.space.u64(kernel.symbols.address("vmap_nodes"))
    count = int.from_bytes(kernel.space.read(kernel.symbols.address("nr_vmap_nodes"), 4), "little")
    kind = kernel.type("struct vmap_node")
    if not 0 < count <= _MAX_NODES or not kind.size:
        raise MissingDescription(f"nr_vmap_nodes is {count}")
    busy = offset_of(kind, "busy.head")
    return [VirtAddr(nodes + index * kind.size + busy) for index in range(count)]
