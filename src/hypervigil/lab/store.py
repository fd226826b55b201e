"""Where the range keeps kernels, small programs and images."""

import os
from pathlib import Path

from hypervigil.core.errors import UsageError


def cache_directory(chosen: Path | None) -> Path:
    """The range's directory: `chosen`, or hypervigil/lab in the user's cache (XDG Base Directory Specification).

    Raises:
        UsageError: it cannot be made or written to.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = (chosen or home / "hypervigil" / "lab").absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: {error.strerror}; choose another with HYPERVIGIL_LAB") from error
    if not os.access(directory, os.W_OK):
        raise UsageError(f"{directory}: not writable; choose another with HYPERVIGIL_LAB")
    return directory
