"""The command line.

Exit status: 0 holds, 1 violated, 2 usage or broken input, 3 not fully seen.
"""

import importlib
import os
import sys
from collections.abc import Sequence

import click

import hypervigil
from hypervigil.core.errors import HypervigilError, ProgramError

_BROKEN = 2
_INTERRUPTED = 130
_COMMANDS = {
    "scan": "integrity:scan",
    "integrity": "integrity:integrity",
    "collect": "bundles:collect",
    "verify": "bundles:verify",
    "report": "reports:report",
    "checks": "catalogue:checks",
    "lab": "lab:lab",
    "completion": "completion:completion",
}


class _Lazy(click.Group):
    """Commands that are imported when they are used, so that completion and help are quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Name every command, in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import a command."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        found = getattr(importlib.import_module(f"hypervigil.cli.{module}"), name)
        if not isinstance(found, click.Command):
            raise ProgramError(f"{cmd_name} is no command")
        return found


@click.group(
    cls=_Lazy,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "auto_envvar_prefix": "HYPERVIGIL",
    },
)
@click.version_option(hypervigil.__version__, "-V", "--version", message="%(prog)s %(version)s")
def root() -> None:
    """Independent evidence that hypervisors and virtual machines are what you think they are.

    Exit status: 0 holds, 1 violated, 2 usage or broken input, 3 not fully seen.
    """


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
