"""Symbols by name and by address, and what a table that is partly lost cannot answer.

A symbol that is not found in a whole table does not exist. In one with holes it may: then a question by name raises
`MissingDescription`, unless the order of names (``kallsyms_seqs_of_names``) shows that the name stands in no hole.
"""

import bisect
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hypervigil.core.errors import MissingDescription
from hypervigil.core.units import VirtAddr


class Losses(NamedTuple):
    """What is lost of a table.

    Attributes:
        placeless: names whose address is lost, one for each such symbol.
        ranges: closed ranges ``[low, high]`` of virtual addresses in which those may be, sorted and disjoint.
        in_order: every name in the order of strcmp, None where it is lost; None where there is no such order.
        nameless: whether any name may be lost; without such, a name that is not found does not exist.
    """

    placeless: tuple[str, ...]
    ranges: tuple[tuple[int, int], ...]
    in_order: tuple[str | None, ...] | None
    nameless: bool = True


class Symbols:
    """A table of symbols, immutable.

    Args:
        addresses: virtual addresses, in any order.
        names: one an address; empty where it is lost.
        types: one letter an address, as nm(1) has them.
        source: where the table comes from, for messages.
        sizes: bytes of each symbol, where the table has them (a module's has, kallsyms has not).
        losses: what is lost of the table; None for a whole one.
    """

    def __init__(
        self,
        addresses: npt.NDArray[np.uint64],
        names: Sequence[str],
        types: str,
        source: str,
        sizes: npt.NDArray[np.uint64] | None = None,
        losses: Losses | None = None,
    ) -> None:
        order = np.argsort(addresses, kind="stable")
        self.source = source
        self.addresses: list[int] = addresses[order].tolist()
        self.names: list[str] = [names[i] for i in order.tolist()]
        self._shared: dict[str, list[int]] | None = None
        self.types = "".join([types[i] for i in order.tolist()])
        self.sizes: list[int] | None = None if sizes is None else sizes[order].tolist()
        self._by_name = dict(zip(reversed(self.names), range(len(self.names) - 1, -1, -1), strict=True))
        self._by_name.pop("", None)
        self.losses = losses
        self._slots: tuple[list[str], list[int]] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None

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
        """Every address of a name, ascending; empty if there is none.

        Raises:
            MissingDescription: one of them may be lost.
        """
        if self.may_be_lost(name):
            raise MissingDescription(f"symbol {name} may be in a part of {self.source} that is lost")
        if name not in self._by_name:
            return []
        if self._shared is None:
            self._shared = {}
            for position, other in enumerate(self.names):
                if other and self._by_name[other] != position:
                    self._shared.setdefault(other, []).append(self.addresses[position])
        return [self.addresses[self._by_name[name]], *self._shared.get(name, ())]

    def find(self, *names: str) -> VirtAddr | None:
        """The address of the first of `names` that exists; None if none does.

        Raises:
            MissingDescription: one that was not found before may be lost.
        """
        for name in names:
            position = self._by_name.get(name)
            if position is not None:
                return VirtAddr(self.addresses[position])
            if self.may_be_lost(name):
                raise MissingDescription(f"symbol {name} may be in a part of {self.source} that is lost")
        return None

    def may_be_lost(self, name: str) -> bool:
        """Whether there may be a symbol of that name that is not in the table any more."""
        if self.losses is None:
            return False
        if name in self.losses.placeless:
            return True
        if not self.losses.nameless or self.losses.in_order is None:
            return self.losses.nameless
        if self._slots is None:
            self._slots = _known_slots(self.losses.in_order)
        known, slots = self._slots
        low, high = bisect.bisect_left(known, name), bisect.bisect_right(known, name)
        before = slots[low - 1] if low else -1
        behind = slots[high] if high < len(slots) else len(self.losses.in_order)
        return behind - before != high - low + 1

    def doubtful(self, address: int) -> bool:
        """Whether the last symbol at or below an address is not known for certain, or its name is not."""
        if self.losses is None:
            return False
        if self._between_lost(address, address):
            return True
        position = self.nearest(address)
        return position is not None and "" in self.exactly(self.addresses[position])

    def _between_lost(self, low: int, high: int) -> bool:
        """Whether a symbol whose address is lost may lie in ``[low, high]``."""
        ranges = () if self.losses is None else self.losses.ranges
        at = bisect.bisect_left(ranges, low, key=lambda pair: pair[1])
        return at < len(ranges) and ranges[at][0] <= high

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
        """The address of the next symbol behind `name`; None for the last.

        Raises:
            MissingDescription: there is no such symbol, or the next one may be lost.
        """
        start = self.address(name)
        high = bisect.bisect_right(self.addresses, start)
        end = self.addresses[high] if high < len(self.addresses) else None
        if self._between_lost(start, start if end is None else end - 1):
            raise MissingDescription(f"what follows symbol {name} is lost from {self.source}")
        return None if end is None else VirtAddr(end)

    def between(self, low: int, high: int) -> range:
        """Positions of the symbols in ``[low, high)``."""
        return range(bisect.bisect_left(self.addresses, low), bisect.bisect_left(self.addresses, high))


def _known_slots(in_order: tuple[str | None, ...]) -> tuple[list[str], list[int]]:
    """The names that are known, sorted, with their places in the order; nothing where that is no order."""
    pairs = [(name, place) for place, name in enumerate(in_order) if name is not None]
    names = [name for name, _ in pairs]
    if any(one > other for one, other in itertools.pairwise(names)):
        return [], []
    return names, [place for _, place in pairs]
