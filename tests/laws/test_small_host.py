"""Two laws over a host of some pages: lost evidence neither clears nor accuses, and no forgery ends a run.

What the laboratory shows on whole images (`test_lost_evidence`, `test_hostile_images`) is shown here on every page of
a small one, in seconds.
"""

import random
from collections.abc import Iterator

import pytest

from hypervigil.app.judging import judge_memory
from hypervigil.core.finding import Verdict
from hypervigil.core.report import Report
from hypervigil.core.units import PAGE_SIZE
from hypervigil.memory.reader import Reader
from tests.extract.judged import SETTINGS, evidence, judged
from tests.laws.mutation import Changed, Watched, mutate
from tests.linux.host_builder import host
from tests.linux.kernel_builder import PHYSICAL, TEXT, KernelImage

FORGERIES = 30
FORGED_TYPES = 30
MOST_READS = 400_000
"""Four for each of the 65,536 pages of executable memory that are searched, and some."""


def read_pages(image: KernelImage) -> list[int]:
    """Pages that judging reads and that hold something."""
    watched = Watched(image.raw())
    judge_memory(watched, evidence, SETTINGS)
    size = len(image.data) // PAGE_SIZE
    return [p for p in sorted(watched.pages) if p < size and any(image.data[p * PAGE_SIZE : (p + 1) * PAGE_SIZE])]


SOUND = host()
PAGES = read_pages(SOUND)


def cleared(report: Report) -> set[str]:
    return {f.check for f in report.findings if f.verdict is Verdict.HOLDS}


CLEARED = cleared(judged(SOUND))


def lost(page: int) -> Iterator[Reader]:
    """The host without a page: a raw image with zeros in its place, and one that says that it lacks the page."""
    image = SOUND.copy()
    image.data[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = bytes(PAGE_SIZE)
    yield image.raw()
    yield SOUND.lime(page * PAGE_SIZE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page * PAGE_SIZE:#x}")
def test_a_lost_page_neither_clears_nor_accuses(page: int) -> None:
    for memory in lost(page):
        report = judged(SOUND, memory)
        assert report.exit_status == 3, [f.check for f in report.findings if f.verdict is Verdict.VIOLATED]
        assert cleared(report) <= CLEARED


def endures(memory: Changed) -> None:
    found = judge_memory(memory, evidence, SETTINGS)
    assert found.faults == ()
    assert memory.reads < MOST_READS
    for finding in found.report.findings:
        assert finding.verdict is not Verdict.VIOLATED or all(v.spans for v in finding.violations)


@pytest.mark.parametrize("seed", range(FORGERIES))
def test_no_forgery_ends_a_run(seed: int) -> None:
    endures(mutate(SOUND.raw(), PAGES, seed))


@pytest.mark.parametrize("seed", range(FORGED_TYPES))
def test_no_forged_type_ends_a_run(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    low, high = (SOUND.symbols[name][0] - TEXT + PHYSICAL for name in ("__start_BTF", "__stop_BTF"))
    changes: dict[int, bytes] = {}
    for _ in range(3):
        at = chance.randrange(low, high)
        page = at // PAGE_SIZE
        content = bytearray(changes.get(page) or SOUND.data[page * PAGE_SIZE : (page + 1) * PAGE_SIZE])
        content[at % PAGE_SIZE] = chance.choice((content[at % PAGE_SIZE] ^ 1 << chance.randrange(8), 0, 0xFF))
        changes[page] = bytes(content)
    endures(Changed(SOUND.raw(), changes))
