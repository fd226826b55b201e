"""``hypervigil integrity`` and ``hypervigil scan``."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from hypervigil.app.integrity import PROFILES, Options, Outcome, as_of
from hypervigil.app.integrity import integrity as judge
from hypervigil.app.sources import open_source
from hypervigil.cli.output import Output, output_of, output_options, show
from hypervigil.cli.progress import Steps
from hypervigil.core.errors import UsageError

F = TypeVar("F", bound=Callable[..., object])


def judging_options(command: F) -> F:
    """Add the options that every command that judges memory has."""
    file = click.Path(exists=True, dir_okay=False)
    for option in (
        click.option("--as-of", default="", metavar="TIME", help="Judge as of this moment (ISO 8601); default: now."),
        click.option("--profile", type=click.Choice(PROFILES), default="default", help="Which checks are required."),
        click.option(
            "--btf",
            "btf",
            type=file,
            multiple=True,
            help="Types of this kernel, as a BTF file, for an image without them.",
        ),
        click.option(
            "--vmlinux",
            "vmlinux",
            type=file,
            multiple=True,
            help="The vendor's kernel to compare with: vmlinux or vmlinuz.",
        ),
        click.option(
            "--package",
            "package",
            type=file,
            multiple=True,
            help="The vendor's package (.deb) or module to compare with.",
        ),
    ):
        command = option(command)
    return command


def options_of(
    package: tuple[str, ...], vmlinux: tuple[str, ...], btf: tuple[str, ...], profile: str, moment: str
) -> Options:
    """Read what the user gave to compare with.

    Raises:
        UsageError: a file cannot be read, or the moment is none.
    """
    references = []
    for path in (*package, *vmlinux, *btf):
        try:
            references.append((Path(path).name, Path(path).read_bytes()))
        except OSError as fault:
            raise UsageError(f"{path}: {(fault.strerror or str(fault)).lower()}") from fault
    return Options(profile=profile, as_of=as_of(moment) if moment else "", references=tuple(references))


def judge_target(target: str, options: Options, *, quiet: bool, command: str = "integrity") -> Outcome:
    """Open and judge a target, with progress; mistakes of ours are told on standard error.

    Args:
        target: as the user named it.
        options: what else they asked for.
        quiet: no progress.
        command: what the report says was run; a bundle is judged again as `integrity`, whatever made it.
    """
    with Steps(quiet=quiet) as steps, open_source(target) as source:
        outcome = judge(source, options, steps, command=command)
    tell_faults(outcome)
    return outcome


def tell_faults(outcome: Outcome) -> None:
    """Say on standard error that something of ours failed; the report says which check it cost."""
    if not outcome.faults:
        return
    if os.environ.get("HYPERVIGIL_DEBUG"):
        sys.stderr.write("\n".join(outcome.faults))
    else:
        count = len(outcome.faults)
        sys.stderr.write(
            f"hypervigil: {count} internal error(s); run with HYPERVIGIL_DEBUG=1 and report what it says\n"
        )


@click.command()
@click.argument("target")
@judging_options
@output_options
@click.pass_context
def integrity(
    context: click.Context,
    target: str,
    *,
    package: tuple[str, ...],
    vmlinux: tuple[str, ...],
    btf: tuple[str, ...],
    profile: str,
    as_of: str,  # the option's name
    as_json: bool,
    as_sarif: bool,
    html_file: str,
    file: str,
    quiet: bool,
) -> int:
    """Is this kernel or hypervisor compromised?

    TARGET is the physical memory of a Linux host with KVM: a file (raw, LiME, ELF core), or a running QEMU as
    qemu:PID or qemu:/path/to/qmp.sock. No symbol files and no network are needed.
    """
    output: Output = output_of(as_json=as_json, as_sarif=as_sarif, html_file=html_file, file=file, quiet=quiet)
    options = options_of(package, vmlinux, btf, profile, as_of)
    command = context.command.name or ""
    return show(judge_target(target, options, quiet=quiet, command=command).report, output)


scan = click.Command(
    name="scan",
    callback=integrity.callback,
    params=integrity.params,
    help="All that applies to the target, in one report. Today this is what `integrity` does.",
)
