"""What all tests share: no property is timed, and images from the range are booted once and kept in its cache."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from hypervigil.lab.images import Format
from hypervigil.lab.kernels import Kernel, fetch
from hypervigil.lab.needs import check_needs
from hypervigil.lab.produce import Production, produce
from hypervigil.lab.scenarios import named
from hypervigil.lab.store import cache_directory

Produce = Callable[..., Production]
_MOST_IMAGES = 6

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault
settings.load_profile("untimed")


def _say(text: str) -> None:
    sys.stderr.write(f"lab: {text}\n")


@pytest.fixture(scope="session")
def lab_cache() -> Path:
    check_needs()
    return cache_directory(None)


@pytest.fixture(scope="session")
def lab_kernel(lab_cache: Path) -> Callable[[str], Kernel]:
    known: dict[str, Kernel] = {}

    def get(name: str) -> Kernel:
        if name not in known:
            known[name] = fetch(name, lab_cache, _say)
        return known[name]

    return get


@pytest.fixture(scope="session")
def lab_image(
    lab_cache: Path, lab_kernel: Callable[[str], Kernel], tmp_path_factory: pytest.TempPathFactory
) -> Produce:
    """Call with a kernel's and a scenario's name, and formats; gives the images and the truth about them.

    Only the last few stay on disk: each has 256 MiB. What has mapped one keeps it.
    """
    folder = tmp_path_factory.mktemp("lab")
    made: dict[tuple[str, str, tuple[Format, ...]], Production] = {}

    def get(kernel: str, scenario: str, *formats: Format) -> Production:
        key = (kernel, scenario, formats or (Format.RAW,))
        if key not in made:
            chosen = lab_kernel(kernel)
            while len(made) >= _MOST_IMAGES:
                for image in made.pop(next(iter(made))).images.values():
                    image.unlink(missing_ok=True)
            made[key] = produce(named(scenario), chosen, folder / chosen.release, key[2], lab_cache, _say)
        return made[key]

    return get
