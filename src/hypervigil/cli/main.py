"""The command line.

Exit status: 0 holds, 1 violated, 2 usage or broken input, 3 not fully seen.
"""

import importlib
import os
import sys
from collections.abc import Sequence

import click

import hypervigil
from hypervigil.app.guard import guarded
from hypervigil.core.errors import HypervigilError, ProgramError

_BROKEN = 2
_INTERRUPTED = 130
_STDOUT, _STDERR = 1, 2
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
    """Run the command line and exit; whatever goes wrong ends with a status that is no verdict."""
    _open_closed_streams()
    try:
        status = guarded(lambda: _run(arguments), (HypervigilError, click.ClickException, click.Abort, OSError))
        sys.stdout.flush()
    except HypervigilError as fault:
        click.echo(f"hypervigil: {fault}", err=True)
        sys.exit(_BROKEN)
    except click.ClickException as fault:
        fault.show()
        sys.exit(_BROKEN)
    except (click.Abort, KeyboardInterrupt):
        click.echo("hypervigil: interrupted", err=True)
        sys.exit(_INTERRUPTED)
    except OSError as fault:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in its buffer is lost
        if not isinstance(fault, BrokenPipeError):
            said = (fault.strerror or str(fault)).lower()
            click.echo(f"hypervigil: {fault.filename or 'standard output'}: {said}", err=True)
        sys.exit(_BROKEN)
    sys.exit(status)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        status = root.main(
            args=None if arguments is None else list(arguments), prog_name="hypervigil", standalone_mode=False
        )
    except SystemExit as ended:  # a reader that went away, to which click gives the status of a violation; completion
        return _BROKEN if ended.code else 0
    return status if isinstance(status, int) else 0


def _open_closed_streams() -> None:
    """Let closed standard streams lead to nowhere: a file that is opened later must not take their place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - positional only
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(_STDOUT, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(_STDERR, "w", closefd=False)
