"""A part of the matrix, on every kernel: what `hypervigil lab matrix` runs whole."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hypervigil.app.matrix import run_matrix
from hypervigil.lab.kernels import Kernel
from hypervigil.lab.scenarios import named

pytestmark = pytest.mark.lab

KERNELS = ("5.10", "6.1", "6.12", "newest")
TAMPERINGS = ("kvm-x86-ops-slot", "io-bus-device-ops", "ownerless-code", "module-hidden", "rogue-machine")
SOUND = ("plain", "kprobe", "two-guests")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scenario", TAMPERINGS)
def test_a_tampering_is_caught_by_its_checks_and_named(
    kernel: str, scenario: str, lab_kernel: Callable[[str], Kernel], lab_cache: Path, tmp_path: Path
) -> None:
    (cell,) = run_matrix([lab_kernel(kernel)], (named(scenario),), tmp_path, lab_cache, print)
    assert cell.outcome == "caught", cell.why


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scenario", SOUND)
def test_a_sound_host_is_cleared(
    kernel: str, scenario: str, lab_kernel: Callable[[str], Kernel], lab_cache: Path, tmp_path: Path
) -> None:
    (cell,) = run_matrix([lab_kernel(kernel)], (named(scenario),), tmp_path, lab_cache, print)
    assert cell.outcome == "passed", cell.why
