"""The last place where a mistake of ours is caught.

Left to itself Python would show a traceback and exit with status 1, which here says that a system was altered.
"""

import os
import traceback
from collections.abc import Callable
from typing import TypeVar

from hypervigil.core.errors import ProgramError

T = TypeVar("T")


def guarded(work: Callable[[], T], expected: tuple[type[Exception], ...]) -> T:
    """Run `work` and let only `expected` errors out of it.

    Raises:
        ProgramError: anything else, in one line, or with its traceback where HYPERVIGIL_DEBUG is set.
    """
    try:
        return work()
    except expected:
        raise
    except Exception as fault:
        if os.environ.get("HYPERVIGIL_DEBUG"):
            raise ProgramError(f"internal error: {traceback.format_exc()}") from fault
        said = f"internal error: {type(fault).__name__}: {fault}"
        raise ProgramError(f"{said}; run with HYPERVIGIL_DEBUG=1 and report what it says") from fault
