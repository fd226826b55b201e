"""The symbols of an emulated host, from its own /proc/kallsyms: an authority that the product does not use."""

import bisect
from collections.abc import Iterable, Iterator

import msgspec

from hypervigil.core.units import VirtAddr
from hypervigil.lab.errors import NotApplicable


class Symbol(msgspec.Struct, frozen=True, order=True):
    """A line of /proc/kallsyms; `module` is "" for the kernel's own."""

    address: VirtAddr
    kind: str
    name: str
    module: str = ""


class Symbols:
    """Symbols by name and by address.

    Attributes:
        listed: all of them in the order of /proc/kallsyms, which is the order of the kernel's own table.
    """

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        self.listed = tuple(symbols)
        self._sorted = sorted(self.listed)
        self._addresses = [symbol.address for symbol in self._sorted]
        self._names: dict[str, list[Symbol]] = {}
        for symbol in self._sorted:
            self._names.setdefault(symbol.name, []).append(symbol)

    def __iter__(self) -> Iterator[Symbol]:
        return iter(self._sorted)

    def named(self, name: str, module: str | None = None) -> list[Symbol]:
        """All symbols of that name, in that module if one is given ("" is the kernel)."""
        found = self._names.get(name, [])
        return [symbol for symbol in found if module is None or symbol.module == module]

    def find(self, *names: str, module: str | None = None) -> Symbol:
        """The first symbol that has one of these names, tried in order.

        Raises:
            NotApplicable: there is none.
        """
        for name in names:
            for symbol in self.named(name, module):
                return symbol
        raise NotApplicable(f"this kernel has no symbol {' or '.join(names)}")

    def name_of(self, address: VirtAddr) -> str:
        """What stands at an address: the last symbol at or before it, and the distance from there."""
        at = bisect.bisect_right(self._addresses, address) - 1
        if at < 0:
            return f"{address:#x}"
        return f"{self._sorted[at].name}+{address - self._addresses[at]:#x}"

    def end(self, symbol: Symbol) -> VirtAddr:
        """Where the next symbol begins: the half-open end of what `symbol` can name."""
        at = bisect.bisect_right(self._addresses, symbol.address)
        return self._addresses[at] if at < len(self._addresses) else VirtAddr(symbol.address + 8)


def parse_kallsyms(text: str) -> Symbols:
    """Reads the text of /proc/kallsyms (kernel/kallsyms.c, `s_show`)."""
    return Symbols(_each_symbol(text))


def _each_symbol(text: str) -> Iterator[Symbol]:
    for line in text.splitlines():
        address, kind, name, *module = line.split()
        yield Symbol(VirtAddr(int(address, 16)), kind, name, module[0].strip("[]") if module else "")
