"""Where the range keeps kernels, small programs and images."""

import os
import shutil
from pathlib import Path

from hypervigil.core.errors import UsageError

_DOWNLOADED = frozenset({"apt", "kernels"})
_BLOCK = 512


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


def clean(cache: Path, *, everything: bool = False) -> int:
    """Removes what can be made again: images, snapshots, initial file systems; kernels too if `everything`.

    Returns:
        Bytes that are free now and were not before, as files occupy them.

    Raises:
        UsageError: something cannot be removed.
    """
    freed = 0
    try:
        for item in cache.iterdir():
            if item.name == "running" or (item.name in _DOWNLOADED and not everything):
                continue
            files = [item] if item.is_file() else [path for path in item.rglob("*") if path.is_file()]
            freed += sum(path.stat().st_blocks * _BLOCK for path in files if not path.is_symlink())
            if item.is_dir():
                shutil.rmtree(item)
            else:
                item.unlink()
    except OSError as error:
        raise UsageError(f"{error.filename or cache}: {error.strerror}") from error
    return freed
