"""``hypervigil report``: another form of a report that was saved as JSON."""

from pathlib import Path

import click

from hypervigil.cli.output import output_of, output_options, show
from hypervigil.core.errors import UsageError
from hypervigil.report.json import read_json


@click.command()
@click.argument("saved", type=click.Path(exists=True, dir_okay=False))
@output_options
def report(saved: str, *, as_json: bool, as_sarif: bool, html_file: str, file: str, quiet: bool) -> int:
    """Render a report that was SAVED as JSON: as text, SARIF, or a page to mail."""
    output = output_of(as_json=as_json, as_sarif=as_sarif, html_file=html_file, file=file, quiet=quiet)
    try:
        data = Path(saved).read_bytes()
    except OSError as fault:
        raise UsageError(f"{saved}: {(fault.strerror or str(fault)).lower()}") from fault
    return show(read_json(data), output)
