"""Areas of vmalloc space that are in use (mm/vmalloc.c).

Kept on ``vmap_area_list`` until 6.8, and on the busy lists of ``vmap_nodes`` since d093602919ad "mm: vmalloc: remove
global vmap_area_root rb-tree" (6.9).
"""

import msgspec

from hypervigil.core.errors import MissingDescription
from hypervigil.core.facts import Gap, Observed
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.linux.lists import walk_list
from hypervigil.linux.members import number, offset_of
from hypervigil.memory.kernel import Kernel

_MAX_NODES = 4096
_VM_ALLOC = 2


class VmapArea(msgspec.Struct, frozen=True, order=True):
    """A live area: half-open ``[start, end)``, virtual, guard page included.

    Attributes:
        reserved: nothing needs to be mapped in it: per-CPU areas are filled on demand and have no list of pages.
    """

    start: int
    end: int
    reserved: bool = False

    def holds(self, start: int, end: int) -> bool:
        """Whether it must have mappings in ``[start, end)``: its guard page has none."""
        return not self.reserved and self.start < end and self.end - PAGE_SIZE > start


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
            start, end = number(area, "va_start"), number(area, "va_end")
            areas.add(VmapArea(start, end, _reserved(kernel, number(area, "vm"))))
    return Observed(tuple(sorted(areas)), tuple(gaps))


def _reserved(kernel: Kernel, address: int) -> bool:
    """Whether a ``struct vm_struct`` was made by ``pcpu_get_vm_areas``: VM_ALLOC without pages."""
    if not address:
        return False
    area = kernel.object("struct vm_struct", address)
    return bool(number(area, "flags") & _VM_ALLOC) and not number(area, "pages")


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
