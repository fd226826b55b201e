"""Whatever an attacker does to an image: no crash of ours, no hang, no accusation without evidence.

HYPERVIGIL_MUTATIONS sets how many images are made. That none takes long is counted in reads here, and measured in
seconds over 1,000 images by `python -m bench.hostile`.
"""

import os

import pytest

from hypervigil.app.judging import Judged, Settings, judge_memory
from hypervigil.core.evidence import Evidence
from hypervigil.core.finding import Verdict
from hypervigil.lab.images import Format
from hypervigil.memory.open import open_image
from hypervigil.memory.reader import Reader
from tests.conftest import Produce
from tests.laws.mutation import Watched, mutate

pytestmark = pytest.mark.lab

_COUNT = int(os.environ.get("HYPERVIGIL_MUTATIONS", "40"))
_SETTINGS = Settings("integrity", "image", "default", "2026-01-01T00:00:00Z")
_TIMES_CLEAN = 3
_GRACE = 20_000


def _evidence(_chunks: tuple[int, ...]) -> Evidence:
    return Evidence(id="memory", kind="memory/raw", name="image", size=1)


def _judged(memory: Reader) -> Judged:
    return judge_memory(memory, _evidence, _SETTINGS)


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "newest"])
def test_mutated_images_end_without_a_fault_of_ours(kernel: str, lab_image: Produce) -> None:
    image = open_image(str(lab_image(kernel, "plain").images[Format.RAW]))
    watched = Watched(image)
    _judged(watched)
    pages = sorted(page for page in watched.pages if page < image.ranges[-1].end >> 12)
    for seed in range(_COUNT // 4):
        mutated = mutate(image, pages, seed)
        judged = _judged(mutated)
        assert judged.faults == (), f"seed {seed}: {judged.faults}"
        assert mutated.reads < _TIMES_CLEAN * watched.reads + _GRACE, f"seed {seed}"
        for finding in judged.report.findings:
            assert finding.verdict is not Verdict.VIOLATED or all(v.spans for v in finding.violations)
