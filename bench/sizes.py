"""What an image's size costs: one host's memory, with more and more other memory behind it.

The added memory is random data, so nothing compresses or repeats, to two thirds of the whole; the rest is zero. One
file grows from size to size.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.measure import Cost, best

SIZES_MIB = (256, 512, 1024, 2048, 4096, 8192, 16384)
_BLOCK = 64 << 20
_FILLED = 2 / 3


def grow(image: Path, start: int, size: int) -> None:
    """Extend a file from `start` to `size` bytes, two thirds of it random."""
    source = np.random.Generator(np.random.PCG64(size))
    with image.open("r+b") as file:
        file.seek(start)
        filled = start + int((size - start) * _FILLED)
        for at in range(start, filled, _BLOCK):
            file.write(source.bytes(min(_BLOCK, filled - at)))
        file.truncate(size)
    os.sync()


def each_size(original: Path, folder: Path, command: list[str], limit_mib: int) -> Iterator[tuple[int, Cost]]:
    """``(MiB, cost)`` of judging at every size up to a limit; the file is removed at the end."""
    image = folder / "grown.raw"
    image.write_bytes(original.read_bytes())
    try:
        at = image.stat().st_size
        for size in (mib << 20 for mib in SIZES_MIB if mib <= limit_mib):
            if size > at:
                grow(image, at, size)
                at = size
            yield size >> 20, best([*command, str(image)], 2)
    finally:
        image.unlink()
