"""Makes a scenario real: boots the host, plants, checks that it lives, saves memory and the truth about it."""

import datetime
import importlib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from hypervigil.core.errors import HypervigilError, ProgramError, UsageError
from hypervigil.core.units import VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.guest import build_initramfs
from hypervigil.lab.images import Format, save
from hypervigil.lab.kernels import Kernel
from hypervigil.lab.machine import Machine, Shape, start
from hypervigil.lab.plant.change import Planted
from hypervigil.lab.scenarios import Scenario

LAB_VERSION = 1
_TRIES = 4


class Truth(msgspec.Struct, frozen=True):
    """What is true of an image, known without reading the image.

    Attributes:
        scenario: its name.
        kind: "clean", "legitimate" or "tampering".
        violates: ids of the checks that must find it.
        release: `uname -r` of the host.
        packages: the kernel's Debian packages and versions.
        cmdline: the host's /proc/cmdline.
        qemu: QEMU's version.
        memory: MiB of RAM.
        planted: what was changed; None for a clean host.
        anchors: addresses of well-known symbols by name, from the host's /proc/kallsyms.
        nested: what the nested guests had done when memory was saved.
        time: when memory was saved, UTC, ISO 8601.
        lab_version: the range's own version of images and truth.
    """

    scenario: str
    kind: str
    title: str
    violates: tuple[str, ...]
    release: str
    packages: dict[str, str]
    cmdline: str
    qemu: str
    memory: int
    planted: Planted | None
    anchors: dict[str, VirtAddr]
    nested: dict[str, dict[str, int]]
    time: str
    lab_version: int = LAB_VERSION


class Production(msgspec.Struct, frozen=True):
    """The files that a scenario left: images by format, and the truth."""

    images: dict[str, Path]
    truth_path: Path
    truth: Truth


_ANCHORS = ("_text", "_stext", "_etext", "linux_banner", "init_top_pgt", "phys_base", "__start_BTF", "sys_call_table",
            "idt_table", "init_task", "modules", "kvm_x86_ops", "kvm_vmx_exit_handlers", "svm_exit_handlers", "vm_list")


@contextmanager
def boot(kernel: Kernel, scenario: Scenario, cache: Path, tries: int = _TRIES) -> Iterator[Machine]:
    """A running host for `scenario` on which nothing is planted yet; ended when the `with` ends.

    Raises:
        UsageError: it did not come up in `tries` boots.
    """
    host = scenario.host
    flags = ",".join(flag for flag in (_cpu_flags(kernel), host.cpu_flags) if flag)
    cmdline = f"{host.cmdline} lab.vms={host.vms} lab.vcpus={host.vcpus}".strip()
    shape = Shape(host.memory, host.cpus, cmdline, flags)
    initrd = build_initramfs(kernel, host.modules, cache)
    with ExitStack() as stack:
        yield _first_good(stack, kernel, initrd, shape, cache, tries)


def _first_good(stack: ExitStack, kernel: Kernel, initrd: Path, shape: Shape, cache: Path, tries: int) -> Machine:
    reasons = []
    for _ in range(tries):
        attempt = ExitStack()
        try:
            machine = attempt.enter_context(start(kernel, initrd, shape, cache))
            if "lab.vms=0" not in shape.cmdline:
                machine.check_alive(60)
        except UsageError as error:
            attempt.close()
            reasons.append(str(error))
            continue
        stack.push(attempt.pop_all())
        return machine
    raise UsageError(f"{kernel.release} did not come up in {tries} boots: {'; '.join(reasons)}")


def _cpu_flags(kernel: Kernel) -> str:
    major, minor = (int(part) for part in kernel.release.split(".")[:2])
    return "-cx16" if (major, minor) >= (6, 12) else ""


def plant(machine: Machine, scenario: Scenario) -> Planted | None:
    """Sets the host up and plants what the scenario says; None when it plants nothing.

    Raises:
        NotApplicable: this kernel has no place for it.
        UsageError: a command inside failed, or planting did.
    """
    for line in scenario.host.setup:
        result = machine.sh(line)
        if result.status:
            raise UsageError(f"inside the host: {line}: {result.text.strip()[-300:]}")
    if not scenario.plant:
        return None
    parameters = dict(scenario.plant)
    return _planter(str(parameters.pop("how")))(machine, **parameters)


def _planter(how: str) -> Callable[..., Planted]:
    module, _, name = how.partition(".")
    try:
        function: Any = getattr(importlib.import_module(f"{__package__}.plant.{module}"), name)
    except (ImportError, AttributeError) as error:
        raise ProgramError(f"there is no planter {how}") from error
    planter: Callable[..., Planted] = function
    return planter


def produce(scenario: Scenario, kernel: Kernel, directory: Path, formats: tuple[Format, ...], cache: Path) -> Production:
    """Boots, plants, checks that everything still runs, and saves images and truth in `directory`.

    Raises:
        NotApplicable: this kernel has no place for the scenario.
        UsageError: it could not be done; the message says why.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with boot(kernel, scenario, cache) as machine:
        symbols = machine.symbols
        planted = plant(machine, scenario)
        if scenario.host.vms:
            machine.check_alive()
        anchors = {name: symbols.named(name)[0].address for name in _ANCHORS if symbols.named(name)}
        cmdline = machine.sh("cat /proc/cmdline").text.strip()
        nested = machine.counts() if scenario.host.vms else {}
        images = {}
        with machine.frozen():
            for form in formats:
                images[str(form)] = path = directory / f"{scenario.name}.{form}"
                save(machine, path, form)
        time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    truth = Truth(scenario.name, scenario.kind, scenario.title, scenario.violates, kernel.release, kernel.packages,
                  cmdline, _qemu_version(), scenario.host.memory, planted, anchors, nested, time)
    truth_path = directory / f"{scenario.name}.truth.json"
    truth_path.write_bytes(msgspec.json.format(msgspec.json.encode(truth)) + b"\n")
    return Production(images, truth_path, truth)


def _qemu_version() -> str:
    result = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, check=True)  # noqa: S607 - found on PATH
    return result.stdout.decode().splitlines()[0]


__all__ = ["NotApplicable", "Production", "Truth", "boot", "plant", "produce"]
