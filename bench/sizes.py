"""What an image's size costs: the smaller images are of hosts of that size, the larger ones grow from one of them.

What is added is random data to two thirds, so nothing compresses or repeats; the rest is zero. One file grows from
size to size.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.measure import Cost, best

GROWN_MIB = (1024, 2048, 4096, 8192, 16384)
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


def each_size(images: list[Path], folder: Path, command: list[str], limit_mib: int) -> Iterator[tuple[int, Cost]]:
    """``(MiB, cost)`` of judging each image, and the last one grown up to a limit; that file is removed at the end."""
    for image in images:
        yield image.stat().st_size >> 20, best([*command, str(image)], 2)
    grown = folder / "grown.raw"
    shutil.copyfile(images[-1], grown)
    try:
        for size in (mib << 20 for mib in GROWN_MIB if mib <= limit_mib):
            grow(grown, grown.stat().st_size, size)
            yield size >> 20, best([*command, str(grown)], 2)
    finally:
        grown.unlink()
