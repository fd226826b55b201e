"""``hypervigil collect`` and ``hypervigil verify``."""

import getpass
import sys

import click

from hypervigil.app.bundle import verify_bundle, write_bundle
from hypervigil.cli.integrity import judge_target, judging_options, options_of, tell_faults
from hypervigil.cli.output import output_of, output_options, show
from hypervigil.cli.progress import Steps

_DIFFERENT = 1


@click.command()
@click.argument("target")
@click.option("-o", "--output", "bundle", type=click.Path(dir_okay=False), required=True, help="The bundle to write.")
@click.option("--who", default="", help="Who collects it; default: the login name.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@judging_options
def collect(
    target: str,
    bundle: str,
    who: str,
    *,
    quiet: bool,
    package: tuple[str, ...],
    vmlinux: tuple[str, ...],
    btf: tuple[str, ...],
    profile: str,
    as_of: str,
) -> int:
    """Judge TARGET and keep the evidence in a bundle that others can judge again.

    Of a live machine every range that was read is kept; an image is named by its digest.
    """
    options = options_of(package, vmlinux, btf, profile, as_of)
    outcome = judge_target(target, options, quiet=quiet)
    kind = "recording of a running QEMU, not paused" if outcome.recording is not None else "memory image, by digest"
    manifest = write_bundle(bundle, outcome, options, who=who or getpass.getuser(), how=kind)
    report = outcome.report
    sys.stdout.write(f"{bundle}: {manifest.how}; verdict {report.verdict}, evidence {manifest.evidence.digest}\n")
    return report.exit_status


@click.command()
@click.argument("bundle", type=click.Path(exists=True, dir_okay=False))
@click.option("--image", type=click.Path(exists=True, dir_okay=False), default=None, help="The image that it names.")
@output_options
def verify(
    bundle: str, image: str | None, *, as_json: bool, as_sarif: bool, html_file: str, file: str, quiet: bool
) -> int:
    """Judge a BUNDLE again, offline, and compare the reports byte by byte."""
    output = output_of(as_json=as_json, as_sarif=as_sarif, html_file=html_file, file=file, quiet=quiet)
    with Steps(quiet=quiet) as steps:
        verified = verify_bundle(bundle, image or "", steps)
    tell_faults(verified.outcome)
    status = show(verified.outcome.report, output)
    manifest = verified.manifest
    collected = f"collected by {manifest.who} at {manifest.when} ({manifest.how})"
    if verified.same:
        sys.stderr.write(f"hypervigil: the same report, byte for byte; {collected}\n")
        return status
    why = ""
    if manifest.tool_version != verified.outcome.report.run.tool_version:
        why = f"; it was made by version {manifest.tool_version}"
    sys.stderr.write(f"hypervigil: NOT the report of the bundle{why}; {collected}\n")
    return _DIFFERENT
