"""``hypervigil completion``: completion for the shell."""

import sys

import click
from click.shell_completion import get_completion_class

from hypervigil.core.errors import ProgramError


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print completion code for a SHELL, to be sourced from its start-up file."""
    kind = get_completion_class(shell)
    if kind is None:
        raise ProgramError(f"click has no completion for {shell}")
    script = kind(context.find_root().command, {}, "hypervigil", "_HYPERVIGIL_COMPLETE").source()
    sys.stdout.write(script + "\n")
    return 0
