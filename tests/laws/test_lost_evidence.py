"""Losing evidence never clears a host, and never accuses it."""

import random
from collections.abc import Callable

import pytest

from hypervigil.app.judging import Settings, judge_memory
from hypervigil.core.evidence import Evidence
from hypervigil.core.finding import Verdict
from hypervigil.core.report import Report
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.decode.kallsyms import search_kallsyms
from hypervigil.lab.images import Format
from hypervigil.memory.kernel import Kernel, open_kernel
from hypervigil.memory.open import open_image, read_image
from hypervigil.memory.reader import Reader
from tests.conftest import Produce

pytestmark = pytest.mark.lab

KERNELS = ["5.10", "6.1", "6.12", "newest"]
Remove = Callable[[bytearray, Kernel], None]


def _judge(memory: Reader) -> Report:
    def evidence(_chunks: tuple[int, ...]) -> Evidence:
        return Evidence(id="memory", kind="memory/raw", name="image", size=1)

    return judge_memory(memory, evidence, Settings("integrity", "image", "default", "2026-01-01T00:00:00Z")).report


def _wipe(image: bytearray, kernel: Kernel, start: int, size: int) -> None:
    for at in range(start, start + size, PAGE_SIZE):
        place = kernel.space.physical(VirtAddr(at))
        image[place : place + min(PAGE_SIZE, start + size - at)] = bytes(min(PAGE_SIZE, start + size - at))


def no_types(image: bytearray, kernel: Kernel) -> None:
    start, stop = kernel.symbols.address("__start_BTF"), kernel.symbols.address("__stop_BTF")
    _wipe(image, kernel, start, stop - start)


def no_vmcoreinfo(image: bytearray, kernel: Kernel) -> None:
    kept = kernel.location.vmcoreinfo
    assert kept is not None
    for at in (kept[1], *(place for _, place in kernel.search.others)):
        image[at : at + 3072] = bytes(3072)


def no_symbols(image: bytearray, kernel: Kernel) -> None:
    start = kernel.space.physical(kernel.symbols.address("_stext"))
    for table in search_kallsyms(bytes(image[start : start + (96 << 20)])).tables:
        for low, high in table.ranges.values():
            image[start + low : start + high] = bytes(high - low)


def _without_a_page_of(table: str) -> Remove:
    def remove(image: bytearray, kernel: Kernel) -> None:
        start = kernel.space.physical(kernel.symbols.address("_stext"))
        for found in search_kallsyms(bytes(image[start : start + (96 << 20)])).tables[:1]:
            low, high = found.ranges[table]
            middle = (start + (low + high) // 2) & -PAGE_SIZE
            image[middle : middle + PAGE_SIZE] = bytes(PAGE_SIZE)

    return remove


def no_upper_half(image: bytearray, _kernel: Kernel) -> None:
    del image[len(image) // 2 :]


def no_lower_half(image: bytearray, _kernel: Kernel) -> None:
    image[: len(image) // 2] = bytes(len(image) // 2)


def _at_random(share: float, seed: int) -> Remove:
    def remove(image: bytearray, _kernel: Kernel) -> None:
        chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        for page in range(len(image) // PAGE_SIZE):
            if chance.random() < share:
                image[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = bytes(PAGE_SIZE)

    return remove


REMOVALS: dict[str, Remove] = {
    "types": no_types,
    "vmcoreinfo": no_vmcoreinfo,
    "symbols": no_symbols,
    "a page of names": _without_a_page_of("kallsyms_names"),
    "a page of addresses": _without_a_page_of("kallsyms_offsets"),
    "upper half": no_upper_half,
    "lower half": no_lower_half,
    "1 page of 100": _at_random(0.01, 1),
    "1 page of 10": _at_random(0.1, 2),
}
"""What each removal takes away from the clean image."""


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_is_cleared_and_nobody_accused(kernel: str, removal: str, lab_image: Produce) -> None:
    path = lab_image(kernel, "plain").images[Format.RAW]
    image = bytearray(path.read_bytes())
    REMOVALS[removal](image, open_kernel(open_image(str(path))))
    report = _judge(read_image(memoryview(image)))
    assert report.exit_status == 3, [f.check for f in report.findings if f.verdict is Verdict.VIOLATED]
    assert report.coverage.undecided
    assert all(undecided.why for undecided in report.coverage.undecided)


@pytest.mark.parametrize("removal", ["a page of names", "a page of addresses"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_page_of_symbols_costs_what_depends_on_it_only(kernel: str, removal: str, lab_image: Produce) -> None:
    path = lab_image(kernel, "plain").images[Format.RAW]
    image = bytearray(path.read_bytes())
    REMOVALS[removal](image, open_kernel(open_image(str(path))))
    verdicts = {f.check: f.verdict for f in _judge(read_image(memoryview(image))).findings}
    assert verdicts["KRN-002"] is Verdict.INCOMPLETE
    decided = [verdict for verdict in verdicts.values() if verdict is Verdict.HOLDS]
    assert 2 * len(decided) > len(verdicts) - list(verdicts.values()).count(Verdict.NOT_APPLICABLE)


def test_a_page_of_the_order_of_names_accuses_nobody(lab_image: Produce) -> None:
    path = lab_image("6.1", "plain").images[Format.RAW]
    image = bytearray(path.read_bytes())
    _without_a_page_of("kallsyms_seqs_of_names")(image, open_kernel(open_image(str(path))))
    verdicts = {f.check: f.verdict for f in _judge(read_image(memoryview(image))).findings}
    assert verdicts["KRN-002"] is Verdict.INCOMPLETE
    assert Verdict.VIOLATED not in verdicts.values()


def test_what_depended_on_types_is_not_cleared(lab_image: Produce) -> None:
    path = lab_image("6.1", "plain").images[Format.RAW]
    image = bytearray(path.read_bytes())
    no_types(image, open_kernel(open_image(str(path))))
    report = _judge(read_image(memoryview(image)))
    cleared = {f.check for f in report.findings if f.verdict is Verdict.HOLDS}
    assert not {check for check in cleared if check.startswith("KVM")}
    assert not cleared & {"KRN-012", "KRN-013"}
