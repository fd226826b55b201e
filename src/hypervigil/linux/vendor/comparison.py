"""What is in memory against what the vendor built: text with every lawful patch, constants byte for byte."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hypervigil.core.errors import EvidenceError
from hypervigil.core.facts import Gap
from hypervigil.core.units import VirtAddr
from hypervigil.facts.code import CodeImage, Deviation, SiteCount
from hypervigil.linux.modules import module_sections
from hypervigil.linux.system import System
from hypervigil.linux.text.code import I64, U8, Code, Mask
from hypervigil.linux.text.deviations import bounded, covering_probe, deviation, named
from hypervigil.linux.text.kprobes import Probes, probe_owner
from hypervigil.linux.text.mechanisms import each_sites
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.registry import Registry
from hypervigil.linux.text.sites import INT3, Sites, Table
from hypervigil.linux.vendor.built import Built, Part
from hypervigil.memory.symbols import Symbols

_NOTE = ".note.gnu.build-id"
_NOTE_HEADER = 16
_NEAR = 16
"""Differing bytes closer than this are one deviation: no instruction is longer than 15 bytes."""

_MOST_POKED = 5
"""Bytes of an instruction that may be in the middle of being rewritten (POKE_MAX_OPCODE_SIZE, asm/text-patching.h)."""

Offsets = npt.NDArray[np.intp]


class Compared(NamedTuple):
    """A comparison of one object, and what could not be compared of it."""

    image: CodeImage
    gaps: tuple[Gap, ...]


def compare_text(
    system: System,
    registry: Registry,
    code: Code,
    built: Built,
    tables: Mapping[str, Table],
    symbols: Symbols,
) -> Compared:
    """Compare text byte by byte; a byte that differs must lie in a patch site that holds a legal value.

    Args:
        system: the kernel with its modules.
        registry: what the kernel has registered about its text.
        code: the text in memory.
        built: the object as built, laid out there.
        tables: its tables of patch sites, as built.
        symbols: its symbols.
    """
    original = built.code(code.start, code.end, code.data)
    place = Place(system, code, tables, symbols, registry, original, built.piece, built.moved_by)
    said = list(each_sites(place))
    gaps = [one for one in said if isinstance(one, Gap)]
    sites = [one for one in said if isinstance(one, Sites)]
    gaps += [Gap(*unseen) for one in sites for unseen in one.unseen]
    differing = np.flatnonzero(code.bytes != original.bytes)
    differing = differing[_present(code, differing)]
    lawful = [one.lawful() for one in sites]
    left = differing[~_explained(code, differing, sites, lawful)]
    found = [one for low, high in clusters(left) if (one := _change(place, sites, lawful, low, high)) is not None]
    image = CodeImage(
        name=code.owner,
        reference=built.source,
        compared=sum(_seen(code, part) for part in built.each_text(code.start, code.end)),
        sites=tuple(sorted(_counts(sites))),
        deviations=bounded(found),
    )
    return Compared(image, tuple(gaps))


def _seen(code: Code, part: Part) -> int:
    """How many bytes of a section are in the evidence."""
    lost = (min(high, part.end) - max(low, part.address) for low, high in code.missing)
    return len(part.data) - sum(size for size in lost if size > 0)


def _present(code: Code, offsets: Offsets) -> Mask:
    addresses = np.uint64(code.start) + offsets.astype(np.uint64)
    return code.holds(addresses, 1)


def _explained(code: Code, differing: Offsets, sites: list[Sites], lawful: list[Mask]) -> Mask:
    """Which differing bytes lie in a site that holds a legal value."""
    edges = np.zeros(len(differing) + 1, np.int64)
    for one, good in zip(sites, lawful, strict=True):
        at: I64 = code.offsets(one.address[good])
        low = np.searchsorted(differing, at)
        high = np.searchsorted(differing, at + one.size[good])
        edges += np.bincount(low, minlength=len(edges)) - np.bincount(high, minlength=len(edges))
    found: Mask = np.cumsum(edges)[:-1] > 0
    return found


def clusters(offsets: Offsets) -> Iterator[tuple[int, int]]:
    """Half-open runs of offsets, closed over gaps of less than 16 bytes."""
    if not len(offsets):
        return
    cuts = np.flatnonzero(np.diff(offsets) >= _NEAR)
    starts, ends = [0, *(cuts + 1).tolist()], [*cuts.tolist(), len(offsets) - 1]
    for low, high in zip(starts, ends, strict=True):
        yield int(offsets[low]), int(offsets[high]) + 1


def _change(place: Place, sites: list[Sites], lawful: list[Mask], low: int, high: int) -> Deviation | None:
    """A run of text that no patch explains; None for an int3 of the moment."""
    code, original, probes = place.code, place.original, place.registry.probes
    assert original is not None
    address, size = code.start + low, high - low
    if size <= _MOST_POKED and _is_of_the_moment(code, probes, address):
        return None
    probe = covering_probe(place.system, code, probes, address, size)
    expected: tuple[bytes, ...] = (original.piece(address, size),)
    kind, legal = "text", "what was built"
    for one, good in zip(sites, lawful, strict=True):
        row = _site_at(one, good, address, size)
        if row is not None:
            address, size = int(one.address[row]), int(one.size[row])
            kind, legal, expected = one.kind, one.legal, one.expected(row)
            break
    return deviation(
        place.system,
        kind=kind,
        address=address,
        found=code.piece(address, size),
        legal=legal,
        expected=tuple(value for value in expected if value),
        owner="" if probe is None else probe_owner(place.system, probe),
    )


def _is_of_the_moment(code: Code, probes: Probes, address: int) -> bool:
    int3 = code.piece(address, 1) == bytes([INT3])
    return int3 and (address in probes.rewritten or bool(probes.gaps))


def _site_at(sites: Sites, lawful: Mask, address: int, size: int) -> int | None:
    """The first site without a legal value that holds all of ``[address, address + size)``."""
    low, high = sites.address, sites.address + sites.size.astype(np.uint64)
    rows = np.flatnonzero(~lawful & (low <= np.uint64(address)) & (high >= np.uint64(address + size)))
    return int(rows[0]) if len(rows) else None


def _counts(sites: Iterable[Sites]) -> Iterator[SiteCount]:
    for one in sites:
        for state, mask in one.states:
            if mask.any():
                yield SiteCount(one.kind, state, int(np.count_nonzero(mask)))


class Constant(NamedTuple):
    """A section of read-only data and what of it counts.

    Attributes:
        part: the section as built.
        low: first address that counts.
        high: one past the last.
        sort: brings both sides into the same order, where the loader sorts; None to compare as it stands.
    """

    part: Part
    low: int
    high: int
    sort: Callable[[Table], bytes] | None = None


def compare_data(system: System, name: str, source: str, constants: Iterable[Constant]) -> Compared:
    """Compare read-only data byte by byte."""
    compared = 0
    found: list[Deviation] = []
    gaps: list[Gap] = []
    for constant in constants:
        part = constant.part
        low, high = max(part.address, constant.low), min(part.end, constant.high)
        if low >= high:
            continue
        built = part.data[low - part.address : high - part.address]
        data, seen = _read(system, low, built)
        if not seen.all():
            gaps.append(Gap(f"{int(np.count_nonzero(~seen)):,} bytes of {part.name} of {name}", "not in the image"))
        compared += int(np.count_nonzero(seen))
        if constant.sort is not None:
            found += _sorted_change(system, constant, data, built, low) if seen.all() else []
            continue
        for start, end in clusters(np.flatnonzero((data != built) & seen)):
            found.append(_constant(system, low + start, data[start:end].tobytes(), built[start:end].tobytes()))
    image = CodeImage(name=name, reference=source, compared=compared, deviations=bounded(found))
    return Compared(image, tuple(gaps))


def _read(system: System, low: int, built: U8) -> tuple[U8, Mask]:
    """What stands where `built` should, and which of it is in the image.

    A page that was built as zero may be zero: where a format cannot tell that from missing, it counts as seen.
    """
    data, seen = np.zeros(len(built), np.uint8), np.zeros(len(built), np.bool_)
    for at, size, piece in system.kernel.space.each_piece(VirtAddr(low), len(built)):
        inside = slice(at - low, at - low + size)
        found = _zeros(system, at, size) if piece is None and not built[inside].any() else piece
        if found is not None:
            data[inside] = np.frombuffer(found, np.uint8)
            seen[inside] = True
    return data, seen


def _zeros(system: System, address: VirtAddr, size: int) -> bytes | None:
    try:
        return system.kernel.space.read(address, size, zero_ok=True)
    except EvidenceError:
        return None


def _sorted_change(system: System, constant: Constant, data: U8, built: U8, low: int) -> list[Deviation]:
    assert constant.sort is not None
    mine = constant.sort(Table(low, data.tobytes()))
    wanted = constant.sort(Table(low, built.tobytes()))
    if mine == wanted:
        return []
    return [_constant(system, low, data.tobytes(), built.tobytes(), legal="the same entries in another order")]


def _constant(system: System, address: int, found: bytes, built: bytes, *, legal: str = "what was built") -> Deviation:
    return deviation(system, kind="rodata", address=address, found=found, legal=legal, expected=(built,))


def note_change(system: System, name: str, found: str, wanted: str) -> Deviation | None:
    """A module whose build id is another than the package's; None where its note cannot be cited."""
    module = system.module(name)
    if module is None:
        return None
    try:
        address = module_sections(system.kernel, module)[_NOTE] + _NOTE_HEADER
        one = deviation(
            system,
            kind="build id",
            address=address,
            found=bytes.fromhex(found),
            legal="the module that the package has",
            expected=(bytes.fromhex(wanted),),
        )
    except (EvidenceError, KeyError, ValueError):
        return None
    return named(one, f"build id of {name}")
