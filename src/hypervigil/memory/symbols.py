"""Symbols by name and by address."""

import bisect
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hypervigil.core.errors import MissingDescription
from hypervigil.core.units import VirtAddr


class Symbols:
    """A table of symbols, immutable.

    Args:
        addresses: virtual addresses, in any order.
        names: one an address.
        types: one letter an address, as nm(1) has them.
        source: where the table comes from, for messages.
        sizes: bytes of each symbol, where the table has them (a module's has, kallsyms has not).
    """

    def __init__(
        self,
        addresses: npt.NDArray[np.uint64],
        names: Sequence[str],
        types: str,
        source: str,
        sizes: npt.NDArray[np.uint64] | None = None,
    ) -> None:
        order = np.argsort(addresses, kind="stable")
        self.source = source
        self.addresses: list[int] = addresses[order].tolist()
        self.names: list[str] = [names[i] for i in order.tolist()]
        self._shared: dict[str, list[int]] | None = None
        self.types = "".join([types[i] for i in order.tolist()])
        self.sizes: list[int] | None = None if sizes is None else sizes[order].tolist()
        self._by_name = dict(zip(reversed(self.names), range(len(self.names) - 1, -1, -1), strict=True))

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def address(self, name: str) -> VirtAddr:
        """The address of a symbol; of the lowest, where several share the name.

        Raises:
            MissingDescription: there is none.
        """
        position = self._by_name.get(name)
        if position is None:
            raise MissingDescription(f"symbol {name} was not found in {self.source}")
        return VirtAddr(self.addresses[position])

    def all_of(self, name: str) -> list[int]:
        """Every address of a name, ascending; empty if there is none."""
        if name not in self._by_name:
            return []
        if self._shared is None:
            self._shared = {}
            for position, other in enumerate(self.names):
                if self._by_name[other] != position:
                    self._shared.setdefault(other, []).append(self.addresses[position])
        return [self.addresses[self._by_name[name]], *self._shared.get(name, ())]

    def find(self, *names: str) -> VirtAddr | None:
        """The address of the first of `names` that exists."""
        return next((VirtAddr(self.addresses[self._by_name[n]]) for n in names if n in self._by_name), None)

    def nearest(self, address: int) -> int | None:
        """Position of the last symbol at or below `address`; of those at one address, the first."""
        position = bisect.bisect_right(self.addresses, address) - 1
        if position < 0:
            return None
        return bisect.bisect_left(self.addresses, self.addresses[position])

    def exactly(self, address: int) -> list[str]:
        """All names at exactly `address`, in the order of the table."""
        low = bisect.bisect_left(self.addresses, address)
        high = bisect.bisect_right(self.addresses, address)
        return self.names[low:high]

    def end_of(self, name: str) -> VirtAddr | None:
        """The address of the next symbol behind `name`; None for the last."""
        high = bisect.bisect_right(self.addresses, self.address(name))
        return VirtAddr(self.addresses[high]) if high < len(self.addresses) else None

    def between(self, low: int, high: int) -> range:
        """Positions of the symbols in ``[low, high)``."""
        return range(bisect.bisect_left(self.addresses, low), bisect.bisect_left(self.addresses, high))
