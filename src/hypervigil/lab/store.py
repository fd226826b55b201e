"""Where the range keeps kernels, small programs and images."""

import os
from pathlib import Path

from hypervigil.core.errors import UsageError


def cache_directory(chosen: Path | None) -> Path:
    """The range's directory: `chosen`, or what HYPERVIGIL_LAB says, or hypervigil/lab in the user's cache.

    Source: XDG Base Directory Specification, XDG_CACHE_HOME.

    Raises:
        UsageError: it cannot be made or written to.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    setting = os.environ.get("HYPERVIGIL_LAB")
    directory = (chosen or (Path(setting) if setting else home / "hypervigil" / "lab")).absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: {error.strerror}; choose another with HYPERVIGIL_LAB") from error
    if not os.access(directory, os.W_OK):
        raise UsageError(f"{directory}: not writable; choose another with HYPERVIGIL_LAB")
    return directory
