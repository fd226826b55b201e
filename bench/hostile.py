"""How long hostile images take: 1,000 mutations of clean images, against the clean time.

python -m bench.hostile [COUNT]
"""

import json
import resource
import sys
import time
from pathlib import Path

from tests.laws.mutation import Watched, mutate

from bench.prepare import make_image
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


def main() -> None:
    """Measure, and print the worst ratio of each kernel as JSON."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    folder = Path("build/bench")
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, object] = {}
    for name in _KERNELS:
        image = open_image(str(make_image(name, folder)[0]))
        watched = Watched(image)
        _judge(watched)
        clean = min(_judge(image) for _ in range(3))
        pages = sorted(page for page in watched.pages if page < image.ranges[-1].end >> 12)
        costs = sorted(_judge(mutate(image, pages, seed)) for seed in range(count // len(_KERNELS)))
        results[name] = {
            "images": len(costs),
            "clean_seconds": round(clean, 3),
            "median": round(costs[len(costs) // 2] / clean, 2),
            "worst": round(costs[-1] / clean, 2),
        }
    results["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps(results, indent=1))


main()
