"""What of a kallsyms section is lost: pages of it that are zero from end to end.

No build makes such a page. Names, offsets and sequences are dense, and the few symbols with address 0 fill no page.
So a zero page is one that the image does not hold, or that somebody wiped: what lies in it is not known, and what lies
around it is as good as before. `kallsyms_markers` give a new start every 256 names.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hypervigil.core.units import PAGE_SIZE

U8: TypeAlias = npt.NDArray[np.uint8]
I64: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]


class Holes:
    """The zero pages that touch the half-open range ``[low, high)`` of a buffer.

    Pages are counted from the start of the buffer, which is to begin at the start of a page.
    """

    def __init__(self, data: U8, low: int, high: int) -> None:
        first = max(0, low) // PAGE_SIZE
        last = max(first, min(-(-high // PAGE_SIZE), len(data) // PAGE_SIZE))
        pages = data[first * PAGE_SIZE : last * PAGE_SIZE].view("<u8").reshape(-1, PAGE_SIZE // 8)
        self._first = first
        self._before: I64 = np.concatenate(([0], np.cumsum(~pages.any(axis=1)))).astype(np.int64)
        self.any = bool(self._before[-1])

    def touch(self, starts: I64, ends: I64) -> Mask:
        """Which of the half-open ranges have a byte in a hole; none that is empty."""
        last = len(self._before) - 1
        low = (starts // PAGE_SIZE - self._first).clip(0, last)
        high = (-(-ends // PAGE_SIZE) - self._first).clip(0, last)
        found: Mask = (ends > starts) & (self._before[np.maximum(high, low)] > self._before[low])
        return found

    def hit(self, start: int, end: int) -> bool:
        """Whether one half-open range has a byte in a hole."""
        return bool(self.touch(np.array([start]), np.array([end]))[0])
