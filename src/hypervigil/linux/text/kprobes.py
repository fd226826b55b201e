"""Who probes instructions: registered kprobes (kernel/kprobes.c), and text that is being rewritten at this moment.

``kprobe_table`` hashes ``struct kprobe`` by address. An armed one is an int3; an optimized one a jump to its slot
(arch/x86/kernel/kprobes/opt.c); one on an ftrace site is armed by ftrace (kprobe_ftrace_handler). While the kernel
rewrites live text it puts an int3 there for a moment (arch/x86/kernel/alternative.c, text_poke_bp_batch).
"""

from collections.abc import Iterator
from typing import NamedTuple

from hypervigil.core.errors import EvidenceError
from hypervigil.core.facts import Gap
from hypervigil.core.units import VirtAddr
from hypervigil.linux.lists import walk_chain, walk_list
from hypervigil.linux.members import has, number, offset_of
from hypervigil.linux.system import System
from hypervigil.linux.text.sites import INT3, JMP
from hypervigil.memory.kernel import Kernel

_BUCKETS = 64
_HANDLERS = ("pre_handler", "post_handler")
_AGGREGATE = "aggr_pre_handler"
_MAX_POKED = 4096
_JUMP = 5


class Probe(NamedTuple):
    """A registered kprobe.

    Attributes:
        address: virtual address of its ``struct kprobe``.
        place: the probed address.
        opcode: the byte it replaced.
        handlers: addresses of what it calls, those of the probes it stands for included.
        slot: start of the buffer that an optimized probe jumps to; 0 if it is none.
    """

    address: int
    place: int
    opcode: int
    handlers: tuple[int, ...]
    slot: int

    @property
    def end(self) -> int:
        """One past the last byte that it may change."""
        return self.place + _JUMP

    def explains(self, data: bytes, at: int) -> bool:
        """Whether the bytes at the probed place are its own: an int3, or the jump to its slot.

        Args:
            data: bytes of text.
            at: the virtual address of the first.
        """
        found = data[self.place - at : self.place - at + _JUMP] if self.place >= at else b""
        if found[:1] == bytes([INT3]):
            return True
        if found[:1] != bytes([JMP]) or len(found) < _JUMP or not self.slot:
            return False
        return (self.place + _JUMP + int.from_bytes(found[1:], "little", signed=True)) % (1 << 64) == self.slot


class Probes(NamedTuple):
    """Registered probes by the place they probe, places that are being rewritten, and what could not be read."""

    at: dict[int, Probe]
    rewritten: frozenset[int]
    gaps: tuple[Gap, ...]


def read_probes(kernel: Kernel) -> Probes:
    """Read every kprobe, and the queue of places that are being rewritten."""
    gaps: list[Gap] = []
    found: dict[int, Probe] = {}
    try:
        found = {probe.place: probe for probe in _each_probe(kernel, gaps)}
    except EvidenceError as fault:
        gaps.append(Gap("kprobes", str(fault)))
    try:
        rewritten = frozenset(_being_rewritten(kernel))
    except EvidenceError:  # it can only excuse: without it an int3 counts as foreign
        rewritten = frozenset()
    return Probes(found, rewritten, tuple(gaps))


def _each_probe(kernel: Kernel, gaps: list[Gap]) -> Iterator[Probe]:
    table = kernel.symbols.find("kprobe_table")
    if table is None:
        return
    for bucket in range(_BUCKETS):
        first = kernel.space.u64(VirtAddr(table + 8 * bucket))
        if not first:
            continue
        offset = offset_of(kernel.type("struct kprobe"), "hlist")
        walked = walk_chain(kernel.space, first, offset, "kprobe_table")
        gaps += walked.gaps
        for address in walked.items:
            yield _probe(kernel, address - offset, gaps)


def _probe(kernel: Kernel, address: int, gaps: list[Gap]) -> Probe:
    thing = kernel.object("struct kprobe", address)
    handlers = [number(thing, name) for name in _HANDLERS]
    slot = 0
    if kernel.symbols.find(_AGGREGATE) == handlers[0]:
        offset = offset_of(thing.type_, "list")
        walked = walk_list(kernel.space, address + offset, offset, "probes at one place")
        gaps += walked.gaps
        for other in walked.items:
            handlers += [number(kernel.object("struct kprobe", other), name) for name in _HANDLERS]
        slot = _slot(kernel, address)
    return Probe(
        address=address,
        place=number(thing, "addr"),
        opcode=number(thing, "opcode"),
        handlers=tuple(dict.fromkeys(h for h in handlers if h)),
        slot=slot,
    )


def _slot(kernel: Kernel, address: int) -> int:
    """Probes that may be optimized are the first member of a ``struct optimized_kprobe``."""
    if kernel.symbols.find("optimizing_list") is None:
        return 0
    return number(kernel.object("struct optimized_kprobe", address), "optinsn.insn")


def _being_rewritten(kernel: Kernel) -> Iterator[int]:
    """Places in the queue of ``text_poke_bp_batch``; its vector is ``tp_vec``, later ``text_poke_array``.

    18cbc8bed0c7 "x86/alternatives, jump_label: Provide better text_poke() batching interface" (5.6); renamed by
    "x86/alternatives: Rename 'struct text_poke_loc' to 'struct smp_text_poke_loc'" (6.16).
    """
    text = kernel.symbols.find("_stext", "_text") or 0
    queue = kernel.symbols.find("bp_desc")
    if queue is not None:
        description = kernel.object("struct bp_patching_desc", queue)
        if has(description, "refs") and number(description, "refs.counter"):
            count = min(number(description, "nr_entries"), _MAX_POKED)
            yield from _places(kernel, "struct text_poke_loc", number(description, "vec"), count, text)
    queue = kernel.symbols.find("text_poke_array")
    if queue is not None:
        batch = kernel.object("struct smp_text_poke_array", queue)
        count = min(number(batch, "nr_entries"), _MAX_POKED)
        yield from _places(kernel, "struct smp_text_poke_loc", queue + offset_of(batch.type_, "vec"), count, text)


def _places(kernel: Kernel, kind: str, vector: int, count: int, text: int) -> Iterator[int]:
    width = kernel.type(kind).size or 0
    for index in range(count):
        relative = number(kernel.object(kind, vector + index * width), "rel_addr")
        yield text + (relative - (1 << 64) if relative >> 63 else relative)


def probe_owner(system: System, probe: Probe) -> str:
    """``kprobe FUNCTION+offset, handled by HANDLER``."""
    handlers = ", ".join(system.name_of(handler) for handler in probe.handlers)
    return f"kprobe {system.name_of(probe.place)}" + (f", handled by {handlers}" if handlers else "")


def is_foreign(system: System, probe: Probe) -> bool:
    """Whether a handler of it belongs to nobody, as far as all modules are known."""
    return not system.modules.gaps and any(system.owner_of(handler) is None for handler in probe.handlers)
