"""The range's own error, and what the system's errors become."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypervigil.core.errors import UsageError


class NotApplicable(UsageError):
    """The scenario has no place on this kernel; the message says what the kernel lacks."""


@contextmanager
def told(place: Path) -> Iterator[None]:
    """Lets a full disk, a missing right and the like be told as the user's to mend.

    Args:
        place: what is named where the system names no file.

    Raises:
        UsageError: the system refused something inside the `with`.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(f"{error.filename or place}: {error.strerror or error}") from error
