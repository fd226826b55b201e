"""Per-CPU variables: the copy of each processor (include/linux/percpu-defs.h, mm/percpu.c)."""

from hypervigil.core.errors import MissingDescription
from hypervigil.core.units import VirtAddr
from hypervigil.memory.kernel import Kernel

_MAX_CPUS = 8192


def each_cpu_offset(kernel: Kernel) -> tuple[tuple[int, int], ...]:
    """``(processor, offset)`` of every possible processor, from ``__per_cpu_offset``.

    Raises:
        MissingDescription: the count of processors makes no sense.
        MissingMemory: the table is not in the image.
    """
    count = int.from_bytes(kernel.space.read(kernel.symbols.address("nr_cpu_ids"), 4), "little")
    if not 0 < count <= _MAX_CPUS:
        raise MissingDescription(f"nr_cpu_ids is {count}")
    table = kernel.symbols.address("__per_cpu_offset")
    data = kernel.space.read(table, 8 * count)
    return tuple((cpu, int.from_bytes(data[8 * cpu : 8 * cpu + 8], "little")) for cpu in range(count))


def per_cpu(variable: int, offset: int) -> VirtAddr:
    """Address of one processor's copy of a per-CPU variable."""
    return VirtAddr((variable + offset) % (1 << 64))
