"""Who traces functions: the operations registered with ftrace, and the functions that each has chosen.

``ftrace_ops_list`` (kernel/trace/ftrace.c) links every registered ``struct ftrace_ops``; its hashes name the places it
wants, no filter meaning all, and places it does not want. An operation may have a trampoline of its own, or a function
that is called directly (BPF trampolines): ``ftrace_ops.direct_call`` since dbaccb618fab "ftrace: Store direct
called addresses in their ops" (6.4), before that in ``direct_functions``.
"""

from typing import NamedTuple

import numpy as np

from hypervigil.core.errors import EvidenceError, MissingDescription
from hypervigil.core.facts import Gap
from hypervigil.core.units import VirtAddr
from hypervigil.decode.btf_types import BtfKind
from hypervigil.linux.lists import walk_chain
from hypervigil.linux.members import has, number, offset_of
from hypervigil.linux.text.code import U64, Mask, among, gather
from hypervigil.memory.kernel import Kernel

_RECORD = np.dtype([("ip", "<u8"), ("flags", "<u8")])
_MAX_PAGES = 1 << 14
_MAX_RECORDS = 1 << 22
_MAX_BITS = 20
_MAX_HASHED = 1 << 20
_JMP = 1
_IPMODIFY = "FTRACE_OPS_FL_IPMODIFY"


class Tracer(NamedTuple):
    """A registered ``struct ftrace_ops``.

    Attributes:
        address: where it is.
        function: what is called, virtual.
        flags: its ``flags``.
        wanted: places it traces, sorted; None for all.
        unwanted: places it leaves out, sorted.
        trampoline: start of its own trampoline; 0 if it has none.
        direct: where its places lead directly; 0 if they do not.
    """

    address: int
    function: int
    flags: int
    wanted: U64 | None
    unwanted: U64
    trampoline: int
    direct: int

    def traces(self, places: U64) -> Mask:
        """Which of `places` it traces."""
        chosen = np.ones(len(places), np.bool_) if self.wanted is None else among(places, self.wanted)
        found: Mask = chosen & ~among(places, self.unwanted)
        return found


class Tracers(NamedTuple):
    """Every record of a place that can be traced, and who is registered to trace.

    Attributes:
        places: virtual address of each record's site, ascending.
        flags: its flags; the lowest 19 bits count its users, bit 31 says that it is enabled.
        registered: the operations.
        direct: ``place: where it leads`` of places that call a function directly.
        complete: whether all operations could be read.
        gaps: what could not be read.
    """

    places: U64
    flags: U64
    registered: tuple[Tracer, ...]
    direct: dict[int, int]
    gaps: tuple[Gap, ...]
    complete: bool = True


def read_tracers(kernel: Kernel) -> Tracers:
    """Read ftrace's records and its registered operations; a kernel without ftrace has neither."""
    gaps: list[Gap] = []
    nothing = np.array([], np.uint64)
    if kernel.symbols.find("ftrace_pages_start") is None:
        return Tracers(nothing, nothing, (), {}, ())
    try:
        places, flags = _records(kernel)
    except EvidenceError as fault:
        places, flags = nothing, nothing
        gaps.append(Gap("records of ftrace", str(fault)))
    unread: list[Gap] = []
    try:
        registered = _registered(kernel, unread)
        direct = _direct(kernel)
    except EvidenceError as fault:
        registered, direct = (), {}
        unread.append(Gap("operations registered with ftrace", str(fault)))
    return Tracers(places, flags, registered, direct, (*gaps, *unread), complete=not unread)


def _records(kernel: Kernel) -> tuple[U64, U64]:
    first = kernel.space.u64(kernel.symbols.address("ftrace_pages_start"))
    offset = offset_of(kernel.type("struct ftrace_page"), "next")
    walked = walk_chain(kernel.space, first, offset, "ftrace_pages")
    if walked.gaps or len(walked.items) > _MAX_PAGES:
        raise MissingDescription(str(walked.gaps[0]) if walked.gaps else f"{len(walked.items)} pages of records")
    width = kernel.type("struct dyn_ftrace").size or 0
    if width < _RECORD.itemsize:
        raise MissingDescription(f"struct dyn_ftrace has {width} bytes")
    parts: list[U64] = []
    left = _MAX_RECORDS
    for address in walked.items:
        page = kernel.object("struct ftrace_page", address)
        count = number(page, "index")
        left -= count
        if left < 0:
            raise MissingDescription(f"more than {_MAX_RECORDS} places to trace")
        if count:
            data = kernel.space.read(VirtAddr(number(page, "records")), count * width)
            parts.append(np.frombuffer(data, "<u8").reshape(count, width // 8)[:, :2])
    rows = np.concatenate(parts) if parts else np.zeros((0, 2), np.uint64)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return rows[:, 0].copy(), rows[:, 1].copy()


def _registered(kernel: Kernel, gaps: list[Gap]) -> tuple[Tracer, ...]:
    kind = kernel.type("struct ftrace_ops")
    first = kernel.space.u64(kernel.symbols.address("ftrace_ops_list"))
    walked = walk_chain(kernel.space, first, offset_of(kind, "next"), "ftrace_ops_list")
    gaps += walked.gaps
    end = kernel.symbols.find("ftrace_list_end")
    return tuple(_tracer(kernel, address) for address in walked.items if address != end)


def _tracer(kernel: Kernel, address: int) -> Tracer:
    ops = kernel.object("struct ftrace_ops", address)
    hashes = kernel.object("struct ftrace_ops_hash", number(ops, "func_hash"))
    wanted = sorted(hashed(kernel, number(hashes, "filter_hash")))
    unwanted = sorted(hashed(kernel, number(hashes, "notrace_hash")))
    return Tracer(
        address=address,
        function=number(ops, "func"),
        flags=number(ops, "flags"),
        wanted=np.array(wanted, np.uint64) if wanted else None,
        unwanted=np.array(unwanted, np.uint64),
        trampoline=number(ops, "trampoline"),
        direct=number(ops, "direct_call") & ~_JMP if has(ops, "direct_call") else 0,
    )


def _direct(kernel: Kernel) -> dict[int, int]:
    variable = kernel.symbols.find("direct_functions")
    found = {} if variable is None else hashed(kernel, kernel.space.u64(variable))
    return {place: leads & ~_JMP for place, leads in found.items() if leads}


def hashed(kernel: Kernel, address: int) -> dict[int, int]:
    """``place: where it leads directly, or 0`` of a ``struct ftrace_hash``; empty for a NULL pointer.

    Raises:
        MissingDescription: it is larger than any that makes sense, or its chains do not end.
        MissingMemory: it is not in the image.
    """
    if not address:
        return {}
    thing = kernel.object("struct ftrace_hash", address)
    bits, buckets = number(thing, "size_bits"), number(thing, "buckets")
    if bits > _MAX_BITS:
        raise MissingDescription(f"a hash of ftrace has 2**{bits} buckets")
    kind = kernel.type("struct ftrace_func_entry")
    ip, direct = offset_of(kind, "ip"), offset_of(kind, "direct") if has(kind, "direct") else None
    size = max(ip, direct or 0) + 8
    heads = np.frombuffer(kernel.space.read(VirtAddr(buckets), 8 << bits, zero_ok=True), "<u8")
    waiting: U64 = heads[heads != 0]
    found: dict[int, int] = {}
    while len(waiting):
        entries = gather(kernel.space, waiting, size)
        if not entries.seen.all():
            raise MissingDescription(f"{np.count_nonzero(~entries.seen)} places of a hash of ftrace cannot be read")
        leads = entries.u64(direct) if direct is not None else np.zeros(len(waiting), np.uint64)
        grown = len(found) + len(waiting)
        found.update(zip(entries.u64(ip).tolist(), leads.tolist(), strict=True))
        if len(found) != grown or grown > _MAX_HASHED:
            raise MissingDescription("a hash of ftrace holds a place twice, or has no end")
        following = entries.u64(0)
        waiting = following[following != 0]
    return found


def diverts(kernel: Kernel, tracer: Tracer) -> bool:
    """Whether an operation may change where a traced function goes on (``FTRACE_OPS_FL_IPMODIFY``)."""
    return bool(tracer.flags & _enumerator(kernel, _IPMODIFY))


def _enumerator(kernel: Kernel, name: str) -> int:
    """Value of an enumerator of the kernel's types; all ones where it is not known, so that it counts as set."""
    try:
        btf = kernel.btf
        for kind in (BtfKind.ENUM, BtfKind.ENUM64):
            for type_id in btf.each_id(kind):
                for found in btf.enumerators(type_id):
                    if found.name == name:
                        return found.value
    except EvidenceError:
        return (1 << 64) - 1
    return (1 << 64) - 1
