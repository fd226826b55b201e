"""Makes a scenario real: boots the host, plants, checks that it lives, saves memory and the truth about it."""

import datetime as dt
import hashlib
import importlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import msgspec

from hypervigil.core.errors import EvidenceError, ProgramError, UsageError
from hypervigil.lab.errors import NotApplicable, told
from hypervigil.lab.images import Format, compress, decompress, save
from hypervigil.lab.kernels import Kernel, Progress
from hypervigil.lab.machine import Machine, boot
from hypervigil.lab.scenarios import Scenario
from hypervigil.lab.truth import Planted, Truth, decode_truth, encode_truth

_TRIES = 3
_KEY = 16
_ANCHORS = (
    *(
        "_text",
        "_stext",
        "_etext",
        "linux_banner",
        "init_top_pgt",
        "phys_base",
        "__start_BTF",
        "init_task",
        "modules",
    ),
    *("sys_call_table", "idt_table", "kvm_x86_ops", "svm_exit_handlers", "kvm_vmx_exit_handlers", "vm_list"),
)


class Production(msgspec.Struct, frozen=True):
    """The files that a scenario left: images by format, and the truth, which is also beside them as JSON."""

    images: dict[Format, Path]
    truth_path: Path
    truth: Truth


def plant(machine: Machine, scenario: Scenario) -> Planted | None:
    """Sets a running host up and plants what the scenario says; None when it plants nothing.

    Raises:
        NotApplicable: this kernel has no place for it.
        UsageError: a command inside failed, planting did, or the host does not live on.
    """
    for line in scenario.host.setup:
        machine.text(line)
    machine.learn_symbols()
    parameters = dict(scenario.plant)
    planted = None
    if parameters:
        planter = _planter(str(parameters.pop("how")))
        try:
            planted = planter(machine, **parameters)
        except EvidenceError as error:
            raise UsageError(f"{scenario.name}: {error}") from error
    machine.check_alive()
    return planted


def _planter(how: str) -> Callable[..., Planted]:
    module, _, name = how.partition(".")
    try:
        function: Any = getattr(importlib.import_module(f"{__package__}.plant.{module}"), name)
    except (ImportError, AttributeError) as error:
        raise ProgramError(f"there is no planter {how}") from error
    planter: Callable[..., Planted] = function
    return planter


def tell(machine: Machine, scenario: Scenario, planted: Planted | None) -> Truth:
    """The truth about a host as it is now."""
    symbols = machine.symbols
    anchors = {name: symbols.named(name)[0].address for name in _ANCHORS if symbols.named(name)}
    version = machine.qmp.execute("query-version")
    numbers = version["qemu"]
    return Truth(
        scenario=scenario.name,
        title=scenario.title,
        kind=scenario.kind,
        violates=scenario.violates,
        release=machine.kernel.release,
        packages=machine.kernel.packages,
        cmdline=machine.text("cat /proc/cmdline").strip(),
        qemu=f"{numbers['major']}.{numbers['minor']}.{numbers['micro']} {version['package']}".strip(),
        memory=machine.host.memory,
        planted=planted,
        anchors=anchors,
        nested=machine.counts(),
        time=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )


class _Job(msgspec.Struct, frozen=True):
    """One production: what is made of what, and where it is kept."""

    scenario: Scenario
    kernel: Kernel
    kept: Path
    formats: tuple[Format, ...]
    cache: Path
    progress: Progress


def produce(
    scenario: Scenario,
    kernel: Kernel,
    directory: Path,
    formats: tuple[Format, ...],
    cache: Path,
    progress: Progress,
    *,
    fresh: bool = False,
) -> Production:
    """Leaves a scenario's images and truth in `directory`.

    What the same range made before of the same scenario and kernel comes from the cache. Images of one scenario are
    from the same stop of the same machine. Scenarios of one kernel that need the same host go on from one snapshot,
    and so have the same addresses, unless `fresh` is set.

    Args:
        scenario: what to show.
        kernel: on which kernel.
        directory: where `<scenario>.<format>` and `<scenario>.truth.json` go.
        formats: which images to save.
        cache: where compressed images, snapshots, kernels and small programs are kept.
        progress: is told what is being done.
        fresh: boot anew, even if the cache has it.

    Raises:
        NotApplicable: this kernel has no place for the scenario.
        UsageError: it could not be done, or a disk is full; the message says why.
    """
    kept = cache / "images" / kernel.release / f"{scenario.name}-{_key(scenario, kernel)}"
    there = {form for form in Format if (kept / f"image.{form}.zst").exists()}
    with told(directory):
        directory.mkdir(parents=True, exist_ok=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        if fresh or not (kept / "truth.json").exists() or not there.issuperset(formats):
            wanted = tuple(sorted(there.union(formats)))
            _make(_Job(scenario, kernel, kept, wanted, cache, progress), fresh=fresh)
        return _deliver(scenario, kept, directory, formats)


def _key(scenario: Scenario, kernel: Kernel) -> str:
    """What an image depends on: the scenario, the kernel, and every file of the range itself."""
    digest = hashlib.sha256(msgspec.json.encode((scenario.name, scenario.host, sorted(scenario.plant.items()))))
    digest.update(msgspec.json.encode(sorted(kernel.packages.items())))
    for file in (*_each_file(resources.files(__package__)), *map(Path, scenario.host.files)):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:_KEY]


def _each_file(folder: Traversable) -> Iterator[Traversable]:
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir() and item.name != "scenarios":
            yield from _each_file(item)
        elif item.name.endswith((".py", ".c", "init")):
            yield item


def _make(job: _Job, *, fresh: bool) -> None:
    """Makes all of one production or leaves nothing of it; takes the place of what another version made."""
    with tempfile.TemporaryDirectory(dir=job.kept.parent) as directory:
        new = Path(directory) / "new"
        new.mkdir()
        truth = _persistently(job, new, fresh=fresh)
        job.progress(f"compressing {job.scenario.name}")
        for form in job.formats:
            compress(new / f"image.{form}")
        (new / "truth.json").write_bytes(encode_truth(truth))
        for old in job.kept.parent.glob(f"{job.scenario.name}-{'[0-9a-f]' * _KEY}"):
            shutil.rmtree(old)
        new.rename(job.kept)


def _persistently(job: _Job, new: Path, *, fresh: bool) -> Truth:
    """Tries more than once; only the first time from a snapshot."""
    for attempt in range(1, _TRIES):
        try:
            return _once(job, new, snapshots=attempt == 1 and not fresh)
        except NotApplicable:
            raise
        except UsageError as error:
            job.progress(f"{job.scenario.name} failed, trying again: {error}")
    return _once(job, new, snapshots=False)


def _once(job: _Job, new: Path, *, snapshots: bool) -> Truth:
    job.progress(f"starting {job.kernel.release} for {job.scenario.name}")
    with boot(job.kernel, job.scenario.host, job.cache, job.progress, snapshots=snapshots) as machine:
        planted = plant(machine, job.scenario)
        truth = tell(machine, job.scenario, planted)
        with machine.frozen():
            for form in job.formats:
                save(machine.qmp, machine.place.ram, new / f"image.{form}", form)
    return truth


def _deliver(scenario: Scenario, kept: Path, directory: Path, formats: tuple[Format, ...]) -> Production:
    images = {}
    for form in formats:
        images[form] = directory / f"{scenario.name}.{form}"
        decompress(kept / f"image.{form}.zst", images[form])
    told = (kept / "truth.json").read_bytes()
    truth_path = directory / f"{scenario.name}.truth.json"
    truth_path.write_bytes(told)
    return Production(images, truth_path, decode_truth(told))
