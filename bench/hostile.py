"""How long hostile images take: mutations of clean images of every kernel of the lab, against the clean time."""

import resource
import time
from collections.abc import Iterator
from pathlib import Path

from tests.laws.mutation import Watched, mutate

from bench.prepare import make_image, make_kernel
from hypervigil.app.judging import Settings, judge_memory
from hypervigil.core.evidence import Evidence
from hypervigil.memory.open import open_image
from hypervigil.memory.reader import Reader

_SETTINGS = Settings("integrity", "image", "default", "2026-01-01T00:00:00Z")
_KERNELS = ("5.10", "6.1", "6.12", "newest")


def _judge(memory: Reader) -> float:
    def evidence(_chunks: tuple[int, ...]) -> Evidence:
        return Evidence(id="memory", kind="memory/raw", name="image", size=1)

    began = time.monotonic()
    judged = judge_memory(memory, evidence, _SETTINGS)
    if judged.faults:
        raise SystemExit(judged.faults[0])
    return time.monotonic() - began


def each_kernel(folder: Path, mib: int, count: int) -> Iterator[dict[str, object]]:
    """Judge `count` mutated images, as many of each kernel; the worst and the median against the clean time.

    Raises:
        SystemExit: a fault of the program, on which it must not end.
    """
    for name in _KERNELS:
        image = open_image(str(make_image(make_kernel(name), mib, folder)))
        watched = Watched(image)
        _judge(watched)
        clean = min(_judge(image) for _ in range(3))
        pages = sorted(page for page in watched.pages if page < image.ranges[-1].end >> 12)
        costs = sorted((_judge(mutate(image, pages, seed)), seed) for seed in range(count // len(_KERNELS)))
        yield {
            "kernel": name,
            "images": len(costs),
            "clean_seconds": round(clean, 3),
            "median": round(costs[len(costs) // 2][0] / clean, 2),
            "worst": round(costs[-1][0] / clean, 2),
            "worst_seed": costs[-1][1],
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        }
