"""Writing a result so that a full disk loses neither it nor what stood there before."""

import contextlib
import os
from pathlib import Path

from hypervigil.core.errors import UsageError


def write_whole(path: str | Path, data: bytes) -> None:
    """Write a file that is there whole or not at all.

    The content goes into a file beside it, which then takes its name. What is no regular file (a device, a pipe), or
    stands in a folder that may not be written to, is written in place.

    Raises:
        UsageError: it cannot be written; what stood there is as it was, unless it was written in place.
    """
    target = Path(path)
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)
        else:
            _replace(target.resolve(), data)
    except OSError as fault:
        raise UsageError(f"{path}: {(fault.strerror or str(fault)).lower()}") from fault


def _replace(target: Path, data: bytes) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as fault:
        with contextlib.suppress(OSError):
            partial.unlink()
        if not isinstance(fault, PermissionError) or not target.exists():
            raise
        target.write_bytes(data)
