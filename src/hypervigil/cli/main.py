"""The command line.

Exit status: 0 holds, 1 violated, 2 usage or broken input, 3 not fully seen.
"""

import os
import sys
from collections.abc import Sequence

import click

import hypervigil
from hypervigil.cli.bundles import collect, verify
from hypervigil.cli.catalogue import checks
from hypervigil.cli.completion import completion
from hypervigil.cli.integrity import integrity, scan
from hypervigil.cli.reports import report
from hypervigil.core.errors import HypervigilError

_BROKEN = 2
_INTERRUPTED = 130


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "auto_envvar_prefix": "HYPERVIGIL",
    }
)
@click.version_option(hypervigil.__version__, "-V", "--version", message="%(prog)s %(version)s")
def root() -> None:
    """Independent evidence that hypervisors and virtual machines are what you think they are.

    Exit status: 0 holds, 1 violated, 2 usage or broken input, 3 not fully seen.
    """


for command in (scan, integrity, collect, verify, report, checks, completion):
    root.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    try:
        status = root.main(
            args=None if arguments is None else list(arguments), prog_name="hypervigil", standalone_mode=False
        )
    except HypervigilError as fault:
        click.echo(f"hypervigil: {fault}", err=True)
        sys.exit(_BROKEN)
    except click.ClickException as fault:
        fault.show()
        sys.exit(_BROKEN)
    except (click.Abort, KeyboardInterrupt):
        click.echo("hypervigil: interrupted", err=True)
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_BROKEN)
    sys.exit(status if isinstance(status, int) else 0)
