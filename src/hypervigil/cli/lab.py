"""`hypervigil lab`: boots real KVM hosts in emulation, plants harmless tampering, saves images and their truth."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

import hypervigil
from hypervigil.app.demo import demonstrate
from hypervigil.app.matrix import Cell, run_matrix
from hypervigil.app.matrix import page as render_page
from hypervigil.app.writing import write_whole
from hypervigil.core.errors import HypervigilError, UsageError
from hypervigil.lab import scenarios
from hypervigil.lab.errors import NotApplicable, told
from hypervigil.lab.images import Format, save
from hypervigil.lab.kernels import Kernel, fetch, from_files, known
from hypervigil.lab.machine import attach, boot
from hypervigil.lab.needs import check_needs
from hypervigil.lab.produce import plant, produce, tell
from hypervigil.lab.qemu import Place, each_running
from hypervigil.lab.scenarios import Scenario
from hypervigil.lab.store import cache_directory
from hypervigil.lab.store import clean as clean_store
from hypervigil.lab.truth import encode_truth
from hypervigil.report import terminal


def _say(text: str) -> None:
    click.echo(text, err=True)


def _kernel_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for decorate in (
        click.option(
            "--deb",
            "debs",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            multiple=True,
            help="A kernel package file at hand, with the files it needs; instead of --kernel.",
        ),
        click.option(
            "--package",
            default="linux-image-cloud-amd64",
            show_default=True,
            help="The kernel's package in the suite.",
        ),
        click.option(
            "--kernel",
            "kernels",
            multiple=True,
            default=("6.1",),
            show_default=True,
            help=f"{', '.join(known())}, or the name of a Debian suite.",
        ),
    ):
        function = decorate(function)
    return function


def _each_kernel(kernels: tuple[str, ...], package: str, debs: tuple[Path, ...], cache: Path) -> list[Kernel]:
    check_needs()
    if debs:
        return [from_files(debs, cache, _say)]
    return [fetch(name, cache, _say, package) for name in kernels]


@click.group(name="lab")
@click.option(
    "--directory",
    envvar="HYPERVIGIL_LAB",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where kernels and images are kept.  [default: hypervigil/lab in the user's cache]",
)
@click.pass_context
def lab(ctx: click.Context, directory: Path | None) -> None:
    """The range: real KVM hosts in emulation, with harmless tampering."""
    ctx.obj = directory


def _cache(ctx: click.Context) -> Path:
    chosen: Path | None = ctx.find_root().obj if ctx.obj is None else ctx.obj
    return cache_directory(chosen)


@lab.command()
@click.option("--all", "everything", is_flag=True, help="Kernels as well, which then must be downloaded anew.")
@click.pass_context
def clean(ctx: click.Context, *, everything: bool) -> None:
    """Removes images and snapshots that the range keeps."""
    cache = _cache(ctx)
    if any(each_running(cache)):
        raise UsageError("a machine of the range runs; stop it first")
    click.echo(f"freed {clean_store(cache, everything=everything) >> 20} MiB")


@lab.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_scenarios(*, as_json: bool) -> None:
    """Lists the scenarios that the range can show."""
    found = list(scenarios.each_scenario())
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    table = Table("scenario", "kind", "title", "must violate", box=None, header_style="bold")
    for scenario in found:
        table.add_row(scenario.name, scenario.kind, scenario.title, " ".join(scenario.violates))
    Console(highlight=False).print(table)


@lab.command()
@_kernel_options
@click.argument("scenario", default="plain")
@click.pass_context
def up(ctx: click.Context, scenario: str, kernels: tuple[str, ...], package: str, debs: tuple[Path, ...]) -> None:
    """Boots the host that SCENARIO needs and keeps it until Ctrl-C; plants nothing (see tamper)."""
    cache = _cache(ctx)
    host = scenarios.named(scenario).host
    kernel = _each_kernel(kernels[:1], package, debs, cache)[0]
    _say(f"booting {kernel.release}")
    with boot(kernel, host, cache, _say) as machine:
        machine.close()
        place = machine.place
        click.echo(f"pid {place.pid}\nqmp {place.qmp}\nkernel {kernel.release}")
        _say(f"running; look at it with: hypervigil integrity qemu:{place.qmp}; stop it with Ctrl-C")
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: stop.set())
        while place.runs():
            if stop.wait(0.5):
                _say("stopping")
                return
        raise UsageError("the emulated host has ended")


def _running(ctx: click.Context, pid: int | None) -> Place:
    found = [place for place in each_running(_cache(ctx)) if pid in {None, place.pid}]
    if not found:
        raise UsageError("no such machine runs; start one with: hypervigil lab up")
    if len(found) > 1:
        raise UsageError(f"several machines run, choose one with --pid: {', '.join(str(p.pid) for p in found)}")
    return found[0]


_PID = click.option("--pid", type=int, help="Which of the machines that `up` started.")


@lab.command()
@_PID
@click.argument("scenario")
@click.pass_context
def tamper(ctx: click.Context, scenario: str, pid: int | None) -> None:
    """Plants SCENARIO on a machine that `up` started, and prints what is true of it now, as JSON."""
    chosen = scenarios.named(scenario)
    with attach(_running(ctx, pid)) as machine:
        truth = tell(machine, chosen, plant(machine, chosen))
    click.echo(encode_truth(truth), nl=False)


_FORMAT = click.option(
    "--format",
    "formats",
    type=click.Choice([str(form) for form in Format]),
    multiple=True,
    default=("raw",),
    show_default=True,
    help="The image's layout; may be given more than once.",
)
_OUTPUT = click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Where images and truth go."
)


@lab.command()
@_PID
@_FORMAT
@_OUTPUT
@click.pass_context
def dump(ctx: click.Context, output: Path, formats: tuple[str, ...], pid: int | None) -> None:
    """Saves the memory of a machine that `up` started; with several formats the endings are appended."""
    with attach(_running(ctx, pid)) as machine, machine.frozen():
        for form in formats:
            path = output if len(formats) == 1 else output.with_name(f"{output.name}.{form}")
            with told(path):
                save(machine.qmp, machine.place.ram, path.absolute(), Format(form))
            click.echo(path)


@lab.command()
@_kernel_options
@_FORMAT
@_OUTPUT
@click.option("--fresh", is_flag=True, help="Boot anew even where the cache has the images.")
@click.argument("names", nargs=-1, required=True, metavar="SCENARIO...")
@click.pass_context
def run(
    ctx: click.Context,
    names: tuple[str, ...],
    *,
    kernels: tuple[str, ...],
    package: str,
    debs: tuple[Path, ...],
    formats: tuple[str, ...],
    output: Path,
    fresh: bool,
) -> None:
    """Makes images of SCENARIOs ("all" for all) and their truth in OUTPUT/RELEASE."""
    cache = _cache(ctx)
    chosen = list(scenarios.each_scenario()) if names == ("all",) else [scenarios.named(name) for name in names]
    failures = 0
    for kernel in _each_kernel(kernels, package, debs, cache):
        for scenario in chosen:
            forms = tuple(Format(form) for form in formats)
            failures += not _one(scenario, kernel, (output / kernel.release).absolute(), forms, cache, fresh=fresh)
    if failures:
        raise UsageError(f"{failures} scenarios could not be made")


def _one(
    scenario: Scenario,
    kernel: Kernel,
    directory: Path,
    formats: tuple[Format, ...],
    cache: Path,
    *,
    fresh: bool,
) -> bool:
    start = time.monotonic()
    try:
        production = produce(scenario, kernel, directory, formats, cache, _say, fresh=fresh)
    except NotApplicable as reason:
        click.echo(f"{kernel.release}\t{scenario.name}\tnot applicable\t{reason}")
        return True
    except HypervigilError as error:
        click.echo(f"{kernel.release}\t{scenario.name}\tfailed\t{error}")
        return False
    click.echo(f"{kernel.release}\t{scenario.name}\t{time.monotonic() - start:.1f} s\t{production.truth_path}")
    return True


@lab.command()
@_kernel_options
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Where images go until judged.")
@click.option("--page", type=click.Path(path_type=Path), help="Write the results as a page of the documentation.")
@click.option("--results", type=click.Path(path_type=Path), help="Write the results as JSON.")
@click.argument("names", nargs=-1, required=True, metavar="SCENARIO...")
@click.pass_context
def matrix(
    ctx: click.Context,
    names: tuple[str, ...],
    *,
    kernels: tuple[str, ...],
    package: str,
    debs: tuple[Path, ...],
    output: Path,
    page: Path | None,
    results: Path | None,
) -> int:
    """Makes SCENARIOs ("all" for all), judges each, and compares the verdict with the truth."""
    cache = _cache(ctx)
    chosen = tuple(scenarios.each_scenario()) if names == ("all",) else tuple(map(scenarios.named, names))
    cells: list[Cell] = []
    for cell in run_matrix(_each_kernel(kernels, package, debs, cache), chosen, output.absolute(), cache, _say):
        cells.append(cell)
        what = " ".join(cell.checks)
        click.echo("\t".join((cell.release, cell.scenario, cell.outcome, what, f"{cell.seconds:.1f} s", cell.why)))
        if results is not None:
            write_whole(results, msgspec.json.format(msgspec.json.encode(cells)) + b"\n")
    if page is not None:
        write_whole(page, render_page(cells, _made_with(cells)).encode())
    return 1 if any(cell.outcome == "wrong" for cell in cells) else 0


def _made_with(cells: list[Cell]) -> str:
    right = sum(cell.outcome in {"caught", "passed"} for cell in cells)
    judged = sum(cell.outcome != "not applicable" for cell in cells)
    day = time.strftime("%Y-%m-%d", time.gmtime())
    emulators = ", ".join(sorted({cell.qemu for cell in cells if cell.qemu}))
    return (
        f"Made on {day} with Hypervigil {hypervigil.__version__} and QEMU {emulators}: "
        f"{right} of {judged} cells are as they should be."
    )


@lab.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("build/demo"),
    show_default=True,
    help="Where the two images and the page go.",
)
@click.pass_context
def demo(ctx: click.Context, output: Path) -> int:
    """Boots a KVM host, judges it clean, hooks its hypervisor from outside, and finds the hook."""
    check_needs()
    shown = demonstrate(output.absolute(), _cache(ctx), _say)
    click.echo(terminal.render(shown.clean, terminal.look_of(sys.stdout, os.environ)))
    click.echo(terminal.render(shown.hooked, terminal.look_of(sys.stdout, os.environ)))
    for name, address in shown.planted:
        click.echo(f"planted: {name} at {address:#x}")
    click.echo(f"the page to look at: {shown.page}")
    found = (shown.clean.exit_status, shown.hooked.exit_status) == (0, 1)
    return 0 if found else 1
