"""The demonstration: a real hypervisor in emulation, judged clean, hooked, and the hook found."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hypervigil.app.matrix import judge_image
from hypervigil.app.writing import write_whole
from hypervigil.core.report import Report
from hypervigil.lab.images import Format, save
from hypervigil.lab.kernels import fetch
from hypervigil.lab.machine import boot
from hypervigil.lab.produce import plant
from hypervigil.lab.scenarios import named
from hypervigil.report import html

_KERNEL = "6.1"
_HOOK = "kvm-x86-ops-slot"


class Shown(NamedTuple):
    """What the demonstration leaves.

    Attributes:
        clean: the report before the hook.
        hooked: the report after it.
        planted: what was altered, ``(object, address)``.
        page: the second report as a page.
    """

    clean: Report
    hooked: Report
    planted: tuple[tuple[str, int], ...]
    page: Path


def demonstrate(directory: Path, cache: Path, say: Callable[[str], None]) -> Shown:
    """Boot one host, and judge its memory before and after a hook is written into it from outside.

    Args:
        directory: where the images and the page go.
        cache: where the lab keeps kernels.
        say: told of every step.

    Raises:
        UsageError: something that is needed is missing; the message says what.
    """
    directory.mkdir(parents=True, exist_ok=True)
    scenario = named(_HOOK)
    kernel = fetch(_KERNEL, cache, say)
    say(f"booting a KVM host with kernel {kernel.release} in emulation; its nested guest runs within a minute")
    with boot(kernel, scenario.host, cache, say) as machine:
        before, after = directory / "clean.raw", directory / "hooked.raw"
        with machine.frozen():
            save(machine.qmp, machine.place.ram, before, Format.RAW)
        say("judging the clean host")
        clean, seconds = judge_image(before)
        say(f"{clean.verdict} after {seconds:.1f} s")
        planted = plant(machine, scenario)
        say("a pass-through hook was written into the running host's memory, from outside; its guest runs on")
        machine.check_alive()
        with machine.frozen():
            save(machine.qmp, machine.place.ram, after, Format.RAW)
    say("judging the hooked host")
    hooked, seconds = judge_image(after)
    say(f"{hooked.verdict} after {seconds:.1f} s")
    page = directory / "report.html"
    write_whole(page, html.render(hooked).encode())
    changes = () if planted is None else tuple((c.object, c.address) for c in planted.changes)
    return Shown(clean, hooked, changes, page)
