"""A kernel with its modules: whose an address is, and what stands there.

The modules are those of all views together, so that one which is hidden from one view still owns its memory here;
whether the views agree is a question of its own.
"""

import bisect
import itertools
from functools import cached_property

import msgspec

from hypervigil.core.errors import EvidenceError, MissingDescription
from hypervigil.core.evidence import Span
from hypervigil.core.facts import Gap, Observed
from hypervigil.core.units import VirtAddr
from hypervigil.decode.btf_types import BtfKind
from hypervigil.facts.pointers import Section, Slot, Target
from hypervigil.linux.modules import (
    Module,
    add_module_types,
    listed_modules,
    module_symbols,
    modules_in_sysfs,
    modules_in_tree,
    modules_with_bugs,
    modules_with_types,
    read_module,
)
from hypervigil.linux.views import View, take_view
from hypervigil.memory.kernel import Kernel
from hypervigil.memory.symbols import Symbols
from hypervigil.standards.layouts import kvm_layouts

KERNEL = "kernel"
HYPERVISOR_MODULES = ("kvm", "kvm_amd", "kvm_intel")
"""Modules of KVM, by the names they give themselves."""

_FUNCTION_TYPES = frozenset("tTwW")
_BOUNDS = (
    (Section.TEXT, "_stext", "_etext"),
    (Section.RODATA, "__start_rodata", "__end_rodata"),
    (Section.DATA, "_sdata", "_edata"),
    (Section.DATA, "__bss_start", "__bss_stop"),
    (Section.INIT, "__init_begin", "__init_end"),
)


class Range(msgspec.Struct, frozen=True, order=True):
    """A range that somebody owns: half-open ``[start, end)``, virtual."""

    start: int
    end: int
    owner: str
    section: Section


class System:
    """An opened kernel with its modules.

    Args:
        kernel: the opened kernel.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._symbols: dict[str, Symbols | None] = {}
        self._targets: dict[int, Target] = {}
        add_module_types(kernel, HYPERVISOR_MODULES)
        if self._lacks_module_types():
            kernel.catalogue.fall_back_on(kvm_layouts())

    def _lacks_module_types(self) -> bool:
        """Whether this kernel is of a time before modules had types; one whose types were lost is not helped out."""
        try:
            return not self._lists_types() and bool(self.kernel.btf)
        except EvidenceError:
            return False

    def _lists_types(self) -> bool:
        """Whether this kernel has a list of the modules' types; if its symbol may be lost, its type decides."""
        try:
            return self.kernel.symbols.find("btf_modules") is not None
        except MissingDescription:
            return bool(self.kernel.btf.find("btf_module", BtfKind.STRUCT))

    @cached_property
    def module_views(self) -> tuple[View, ...]:
        """Every view of the modules, those that could not be walked included."""
        views = (
            take_view("module list", lambda: listed_modules(self.kernel), complete=True),
            take_view("address tree", lambda: modules_in_tree(self.kernel), complete=True),
            take_view("sysfs", lambda: modules_in_sysfs(self.kernel), complete=True),
            take_view("bug list", lambda: modules_with_bugs(self.kernel), complete=True),
        )
        if not self._lists_types():
            return views
        return (*views, take_view("type information", lambda: _typed(self.kernel), complete=False))

    @cached_property
    def modules(self) -> Observed[Module]:
        """The modules of all views together, sorted by name."""
        found: dict[str, Module] = {}
        gaps = [gap for view in self.module_views for gap in view.gaps]
        for address in sorted(set().union(*(view.seen or () for view in self.module_views))):
            try:
                module = read_module(self.kernel, address)
            except EvidenceError as fault:
                gaps.append(Gap(f"module at {address:#x}", str(fault)))
                continue
            found.setdefault(module.name, module)
        return Observed(tuple(found[name] for name in sorted(found)), tuple(gaps))

    def module(self, name: str) -> Module | None:
        """The module of that name, or None."""
        return self._modules_by_name.get(name)

    @cached_property
    def _modules_by_name(self) -> dict[str, Module]:
        return {module.name: module for module in self.modules.items}

    @cached_property
    def ranges(self) -> tuple[Range, ...]:
        """Every range of the kernel and its modules, sorted by start.

        Raises:
            MissingDescription: the bounds of the kernel's text may be lost. Without those of its data, what leads
                there belongs to nobody that is known; see `unbounded`.
        """
        found = []
        symbols = self.kernel.symbols
        for section, low, high in _BOUNDS:
            if section in self.unbounded:
                continue
            start, end = symbols.find(low), symbols.find(high)
            if start is not None and end is not None and start < end:
                found.append(Range(start, end, KERNEL, section))
        for module in self.modules.items:
            found += [Range(area.start, area.end, module.name, area.section) for area in module.areas]
        return tuple(sorted(found))

    @cached_property
    def unbounded(self) -> frozenset[Section]:
        """Sections of the kernel, but for its text, of which a bound may be lost from the symbols."""
        lost = {section for section, *names in _BOUNDS if any(self._may_have_lost(name) for name in names)}
        return frozenset(lost - {Section.TEXT})

    def _may_have_lost(self, name: str) -> bool:
        try:
            self.kernel.symbols.find(name)
        except MissingDescription:
            return True
        return False

    @cached_property
    def _starts(self) -> list[int]:
        return [owned.start for owned in self.ranges]

    @cached_property
    def _reach(self) -> list[int]:
        """How far any range up to each one reaches."""
        return list(itertools.accumulate((owned.end for owned in self.ranges), max))

    def owner_of(self, address: int) -> Range | None:
        """The innermost range that holds `address`, or None if it is nobody's."""
        position = bisect.bisect_right(self._starts, address) - 1
        while position >= 0 and self._reach[position] > address:
            owned = self.ranges[position]
            if owned.start <= address < owned.end:
                return owned
            position -= 1
        return None

    def symbols_of(self, owner: str) -> Symbols | None:
        """The symbols of the kernel or of a module; None where they cannot be read."""
        if owner == KERNEL:
            return self.kernel.symbols
        if owner not in self._symbols:
            module = self.module(owner)
            try:
                self._symbols[owner] = None if module is None else module_symbols(self.kernel, module)
            except EvidenceError:
                self._symbols[owner] = None
        return self._symbols[owner]

    def target(self, address: int) -> Target:
        """Describe where a pointer leads."""
        found = self._targets.get(address)
        if found is None:
            found = self._targets[address] = self._describe(address)
        return found

    def _describe(self, address: int) -> Target:
        owned = self.owner_of(address) if address else None
        if owned is None:
            return Target(address=address, placed=not (address and (self.modules.gaps or self.unbounded)))
        symbols = self.symbols_of(owned.owner)
        if symbols is None:
            return Target(address=address, owner=owned.owner, section=owned.section, placed=False)
        if symbols.doubtful(address):
            return Target(address=address, owner=owned.owner, section=owned.section, placed=False)
        position = symbols.nearest(address)
        if position is None or symbols.addresses[position] < owned.start:
            return Target(address=address, owner=owned.owner, section=owned.section)
        names = [
            symbols.names[i]
            for i in symbols.between(symbols.addresses[position], symbols.addresses[position] + 1)
            if owned.section is not Section.TEXT or symbols.types[i] in _FUNCTION_TYPES
        ]
        offset = address - symbols.addresses[position]
        size = 0 if symbols.sizes is None else symbols.sizes[position]
        if size and offset >= size:
            return Target(address=address, owner=owned.owner, section=owned.section)
        return Target(
            address=address,
            symbol=names[0] if names else "",
            offset=offset,
            owner=owned.owner,
            section=owned.section,
            aliases=tuple(names[1:]),
        )

    def name_of(self, address: int) -> str:
        """``symbol+offset [module]`` of an address."""
        return str(self.target(address))

    def slot(self, name: str, address: int, value: int | None = None, wanted: tuple[str, ...] = ()) -> Slot:
        """The pointer at an address as a slot.

        Args:
            name: its name in the kernel's terms.
            address: where the pointer stands.
            value: its value, where it was read already.
            wanted: symbols of which one must stand there.

        Raises:
            MissingMemory: it is not in the image.
        """
        if value is None:
            value = self.kernel.space.u64(VirtAddr(address))
        return Slot(name=name, address=address, target=self.target(value), span=self.spans(address, 8), wanted=wanted)

    def spans(self, address: int, size: int) -> tuple[Span, ...]:
        """Where the bytes at a virtual address stand in the evidence."""
        return self.kernel.spans(address, size)

    @property
    def rests_on(self) -> tuple[str, ...]:
        """The descriptions that whatever is read of this system rests on."""
        return self.kernel.rests_on

    def find(self, name: str, *owners: str) -> VirtAddr | None:
        """The address of a symbol of the first of `owners` that has it."""
        for owner in owners:
            symbols = self.symbols_of(owner)
            if symbols is not None and (address := symbols.find(name)) is not None:
                return address
        return None


def _typed(kernel: Kernel) -> Observed[int]:
    walked = modules_with_types(kernel)
    return Observed(tuple(module for module, _ in walked.items), walked.gaps)
