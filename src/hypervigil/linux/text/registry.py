"""What the kernel has registered about its text, read once for all objects."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hypervigil.core.facts import Gap
from hypervigil.linux.system import System
from hypervigil.linux.text.code import Code
from hypervigil.linux.text.kprobes import Probes, read_probes
from hypervigil.linux.text.landing import Landing, read_landing
from hypervigil.linux.text.thunks import Thunks, read_thunks
from hypervigil.linux.text.tracers import Tracers, read_tracers


class Registry(NamedTuple):
    """Who may rewrite text, and where branches may lead.

    Attributes:
        thunks: thunks for returns and indirect branches.
        tracers: records and operations of ftrace.
        probes: kprobes.
        landing: where direct branches may lead.
    """

    thunks: Thunks
    tracers: Tracers
    probes: Probes
    landing: Landing

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What could not be read of any of them."""
        return (*self.tracers.gaps, *self.probes.gaps, *self.landing.gaps)


def read_registry(system: System, codes: Sequence[Code], copied: Mapping[str, tuple[int, int]] = {}) -> Registry:
    """Read all of it, given the texts of the kernel and of its modules, and where code that is only copied stands."""
    thunks = read_thunks(system)
    landing = read_landing(system, thunks, codes, copied)
    return Registry(thunks, read_tracers(system.kernel), read_probes(system.kernel), landing)
