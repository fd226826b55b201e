"""Runs the programs of the system that the range uses, and tells why one failed."""

import shutil
import subprocess
from pathlib import Path

from hypervigil.core.errors import UsageError

_TIMEOUT = 900
_LAST_LINES = 3


def run(command: list[str], failure: str, directory: Path | None = None) -> str:
    """The output of a command.

    Raises:
        UsageError: it is not installed or fails; begins with `failure`.
    """
    if shutil.which(command[0]) is None:
        raise UsageError(f"{command[0]} is missing; `hypervigil lab` needs it")
    try:
        result = subprocess.run(  # noqa: S603 - fixed commands, no shell
            command,
            cwd=directory,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"{failure}: no answer within {_TIMEOUT} s") from error
    if result.returncode:
        reason = "; ".join(result.stderr.decode(errors="backslashreplace").strip().splitlines()[-_LAST_LINES:])
        raise UsageError(f"{failure}: {reason or f'status {result.returncode}'}")
    return result.stdout.decode(errors="backslashreplace")
