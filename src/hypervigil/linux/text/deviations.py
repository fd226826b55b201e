"""From patch sites to what a comparison says: counts of lawful states, deviations, and who explains them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from hypervigil.facts.code import Deviation, SiteCount
from hypervigil.linux.system import System
from hypervigil.linux.text.code import U64, Code, Mask, among, distinct
from hypervigil.linux.text.kprobes import Probe, Probes, is_foreign, probe_owner
from hypervigil.linux.text.sites import INT3, Sites

MAX_DEVIATIONS = 200
"""Deviations without an owner that are listed for one object; the last one says how many more there are."""

_NAMED = 8
_REACH = 4
_MAX_SHOWN = 64


class Judged(NamedTuple):
    """What is said of the sites of one object.

    Attributes:
        counts: sites by kind and state.
        deviations: sites that hold no legal value, and those whose use by somebody is worth saying.
        known: addresses of all sites, sorted, each once.
    """

    counts: tuple[SiteCount, ...]
    deviations: tuple[Deviation, ...]
    known: U64


def judge_sites(system: System, code: Code, said: Iterable[Sites], probes: Probes) -> Judged:
    """Put together what all mechanisms say of one object."""
    said = tuple(said)
    lawful = [sites.lawful() for sites in said]
    found: list[Deviation] = []
    counts: list[SiteCount] = []
    for sites, good in zip(said, lawful, strict=True):
        for state, mask in sites.states:
            if mask.any():
                counts.append(SiteCount(sites.kind, state, int(np.count_nonzero(mask))))
        excused = 0
        for row in _unexplained(sites, good, said, lawful):
            deviation = _site(system, code, sites, row, probes)
            excused += deviation is None
            found += [] if deviation is None else [deviation]
        if excused:
            counts.append(SiteCount(sites.kind, "being rewritten", excused))
        found += _used(system, code, sites)
    known = distinct(np.concatenate([np.array([], np.uint64), *(sites.address for sites in said)]))
    first = {one.address: one for one in reversed(found)}
    return Judged(tuple(sorted(counts)), tuple(first[address] for address in sorted(first)), known)


def _unexplained(sites: Sites, good: Mask, said: tuple[Sites, ...], lawful: list[Mask]) -> list[int]:
    """Rows that are lawful for no mechanism: a place may belong to several, or lie within one of another."""
    if good.all():
        return []
    left = np.flatnonzero(~good)
    for other, mask in zip(said, lawful, strict=True):
        if other is sites or not len(left):
            continue
        left = left[~among(sites.address[left], distinct(other.address[mask]))]
        low, high = other.address[mask], (other.address + other.size.astype(np.uint64))[mask]
        left = np.array(
            [r for r in left.tolist() if not bool(((low < sites.address[r]) & (sites.address[r] < high)).any())],
            np.intp,
        )
    rows: list[int] = left.tolist()
    return rows


def _site(system: System, code: Code, sites: Sites, row: int, probes: Probes) -> Deviation | None:
    """One site without a legal value; None for an int3 that is of the moment, or of a kprobe that was not read."""
    address, size = int(sites.address[row]), int(sites.size[row])
    found = code.piece(address, size)
    if found[:1] == bytes([INT3]) and (address in probes.rewritten or probes.gaps):
        return None
    probe = covering_probe(system, code, probes, address, size)
    return deviation(
        system,
        kind=sites.kind,
        address=address,
        found=found or bytes(system.kernel.space.read(address, size)),  # type: ignore[arg-type] # a virtual address
        legal=sites.legal,
        expected=tuple(value for value in sites.expected(row) if value),
        owner="" if probe is None else probe_owner(system, probe),
    )


def covering_probe(system: System, code: Code, probes: Probes, address: int, size: int) -> Probe | None:
    """The registered kprobe that changed bytes of ``[address, address + size)`` and has no foreign handler."""
    for place in range(address - _REACH, address + size):
        probe = probes.at.get(place)
        if probe is not None and probe.explains(code.data, code.start) and not is_foreign(system, probe):
            return probe
    return None


def _used(system: System, code: Code, sites: Sites) -> Iterator[Deviation]:
    """Sites in lawful use, one deviation each; where somebody uses many, one that counts them."""
    by_owner: dict[str, list[int]] = {}
    for row, owner in sites.owners.items():
        by_owner.setdefault(owner, []).append(row)
    for owner, rows in by_owner.items():
        shown = rows if len(rows) <= _NAMED else rows[:1]
        for row in shown:
            address, size = int(sites.address[row]), int(sites.size[row])
            more = f" (and {len(rows) - 1:,} more)" if len(rows) > _NAMED else ""
            one = deviation(
                system,
                kind=sites.kind,
                address=address,
                found=code.piece(address, size),
                legal=sites.legal,
                owner=owner,
            )
            yield named(one, one.symbol + more)


def named(one: Deviation, symbol: str) -> Deviation:
    """The same deviation with another name of its place."""
    return Deviation(**{field: getattr(one, field) for field in one.__struct_fields__} | {"symbol": symbol})


def each_probe(system: System, code: Code, probes: Probes) -> Iterator[Deviation]:
    """Every armed kprobe in this text; one whose handler is nobody's has no owner that explains it."""
    for place in sorted(probes.at):
        probe = probes.at[place]
        if not code.start <= place < code.end or not probe.explains(code.data, code.start):
            continue
        foreign = is_foreign(system, probe)
        yield deviation(
            system,
            kind="kprobe",
            address=place,
            found=code.piece(place, 1 if code.piece(place, 1) == bytes([INT3]) else _REACH + 1),
            legal="as built" if not foreign else "a kprobe whose handlers belong to the kernel or a module",
            expected=(bytes([probe.opcode]),),
            owner="" if foreign else probe_owner(system, probe),
        )


def deviation(
    system: System,
    *,
    kind: str,
    address: int,
    found: bytes,
    legal: str,
    expected: tuple[bytes, ...] = (),
    owner: str = "",
) -> Deviation:
    """Bytes that differ, with their place in the evidence.

    Raises:
        MissingMemory: they are not in the image.
    """
    return Deviation(
        kind=kind,
        address=address,
        size=max(1, len(found)),
        symbol=system.name_of(address),
        found=found[:_MAX_SHOWN].hex(),
        legal=legal,
        span=system.spans(address, max(1, len(found))),
        expected=tuple(dict.fromkeys(value[:_MAX_SHOWN].hex() for value in expected)),
        owner=owner,
    )


def bounded(found: list[Deviation]) -> tuple[Deviation, ...]:
    """At most `MAX_DEVIATIONS` without an owner, by address; what is left out is counted in the last one."""
    found = sorted(found, key=lambda one: (one.address, one.kind))
    odd = [one for one in found if not one.owner]
    if len(odd) <= MAX_DEVIATIONS:
        return tuple(found)
    more = len(odd) - MAX_DEVIATIONS
    odd = [
        *odd[: MAX_DEVIATIONS - 1],
        named(odd[MAX_DEVIATIONS - 1], f"{odd[MAX_DEVIATIONS - 1].symbol} (and {more:,} more)"),
    ]
    return tuple(sorted([*odd, *(one for one in found if one.owner)], key=lambda one: (one.address, one.kind)))
