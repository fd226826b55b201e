"""Outside evidence: what the user gave to compare a kernel with.

A Debian package, a kernel (vmlinuz or vmlinux), a module, or type information (BTF). Besides comparing with it, types
and symbols of it stand in where the image has none, and stand beside the image's own where it has.
"""

import hashlib
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from hypervigil.core.errors import EvidenceError, MissingDescription
from hypervigil.core.evidence import Evidence
from hypervigil.core.facts import Gap
from hypervigil.core.units import VirtAddr
from hypervigil.decode.btf import Btf
from hypervigil.linux.identity import Said
from hypervigil.linux.system import System
from hypervigil.linux.vendor.elf import EXEC, ElfFile, Section, text_at
from hypervigil.linux.vendor.files import Kind, Source, each_object, recognise
from hypervigil.linux.vendor.identity import running_build_id
from hypervigil.linux.vendor.kernel_file import kernel_offset
from hypervigil.memory.kernel import Kernel
from hypervigil.memory.symbols import Symbols

_FUNCTION, _OBJECT = 2, 1
_GLOBAL = 1
_LINKED = 0xFFFF_FFFF_8000_0000
_UNDEFINED, _RESERVED = 0, 0xFF00
_MOST_DIFFERENCES = 20
_TYPES, _NOTES, _PER_CPU = ".BTF", ".notes", ".data..percpu"
_TOP = 1 << 64
_MAX_BTF = 1 << 27


class Reference:
    """A file that was given, recognised; what it holds is read when it is asked for.

    Args:
        source: the file.

    Attributes:
        evidence: how it is cited.
        source: the file.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        digest = hashlib.sha256(source.data).hexdigest()
        self.evidence = Evidence(
            id=source.name,
            kind=source.kind,
            name=source.name,
            size=len(source.data),
            digest=f"sha256:{digest}",
            notes=() if source.label == source.name else (source.label,),
        )

    @cached_property
    def kernel_file(self) -> ElfFile | None:
        """The kernel's file, None where this is no kernel; a package is not searched for it.

        Raises:
            DecodeError: the file is damaged.
        """
        if self.source.kind not in {Kind.VMLINUX, Kind.VMLINUZ}:
            return None
        return next((ElfFile(data) for _, data in each_object(self.source, frozenset())), None)

    @cached_property
    def btf(self) -> Btf | None:
        """The kernel's types; None if the file has none.

        Raises:
            DecodeError: the file is damaged.
        """
        found = self._types()
        return None if found is None else Btf(found)

    def types_digest(self) -> str:
        """SHA-256 of the kernel's types as they stand in the file; empty if it has none.

        Raises:
            DecodeError: the file is damaged.
        """
        found = self._types()
        return "" if found is None else hashlib.sha256(found).hexdigest()

    def _types(self) -> bytes | None:
        if self.source.kind is Kind.TYPES:
            return bytes(self.source.data)
        section = None if self.kernel_file is None else self.kernel_file.find(_TYPES)
        return None if self.kernel_file is None or section is None else self.kernel_file.content(section)

    def symbols(self, kernel: Kernel) -> Symbols | None:
        """The kernel's symbols at the addresses where it runs; None if the file has none or is of another build.

        Raises:
            DecodeError: the file is damaged.
            MissingDescription: how far the kernel was moved is not known.
        """
        elf = self.kernel_file
        if elf is None:
            return None
        offset = _offset(kernel, elf)
        return _symbols(elf, offset, self.source.label) if _is_this_build(kernel, elf, offset) else None


def open_reference(name: str, data: bytes) -> Reference:
    """Recognise a file that the user gave.

    Args:
        name: its name, without its folder.
        data: its bytes.

    Raises:
        UnsupportedEvidence: it is no kind of file that can be compared with.
        DecodeError: it is damaged.
    """
    return Reference(recognise(name, memoryview(data)))


def adopt(kernel: Kernel, references: tuple[Reference, ...]) -> None:
    """Take types and symbols from outside where the image has none."""
    for reference in references:
        try:
            kernel.symbols  # noqa: B018 - asks whether there are any
        except MissingDescription:
            _adopt_symbols(kernel, reference)
        try:
            kernel.btf  # noqa: B018 - asks whether there are any
        except MissingDescription:
            _adopt_types(kernel, reference)


def _adopt_symbols(kernel: Kernel, reference: Reference) -> None:
    try:
        if reference.kernel_file is None:
            return
        found = reference.symbols(kernel)
    except EvidenceError as fault:
        kernel.why_no_symbols += f"; {reference.source.label}: {fault}"
        return
    if found is None:
        kernel.why_no_symbols += f"; {reference.source.label} has none of this build"
    else:
        kernel.use_symbols(found)


def _adopt_types(kernel: Kernel, reference: Reference) -> None:
    try:
        found = reference.btf if _speaks_of(kernel, reference) else None
    except EvidenceError as fault:
        kernel.why_no_types += f"; {reference.source.label}: {fault}"
        return
    if found is None:
        kernel.why_no_types += f"; {reference.source.label} has none of this build"
    else:
        kernel.use_types(found, f"BTF of {reference.source.label}")


def _speaks_of(kernel: Kernel, reference: Reference) -> bool:
    """Whether types are of the kernel in memory: by the build of their kernel's file, else by their size.

    Types alone do not say whose they are; but between which symbols they stand in a kernel tells how many bytes it has.

    Raises:
        DecodeError: the file is damaged.
        MissingDescription: how far the kernel was moved is not known.
    """
    elf = reference.kernel_file
    if elf is not None:
        return _is_this_build(kernel, elf, _offset(kernel, elf))
    try:
        start, stop = kernel.symbols.find("__start_BTF"), kernel.symbols.find("__stop_BTF")
    except MissingDescription:
        return True
    return reference.source.kind is Kind.TYPES and (
        start is None or stop is None or stop - start == len(reference.source.data)
    )


def _offset(kernel: Kernel, elf: ElfFile) -> int:
    """How far the kernel was moved."""
    try:
        return kernel_offset(elf, kernel.symbols.address("_text"))
    except MissingDescription:
        offset = kernel.vmcoreinfo.kernel_offset
        if offset is None:
            raise MissingDescription("how far the kernel was moved is not known") from None
        return offset


def _is_this_build(kernel: Kernel, elf: ElfFile, offset: int) -> bool:
    """Whether a kernel's file is of the kernel in memory: by build id, else by its notes where they would be."""
    running = running_build_id(kernel)
    if running:
        return running == elf.build_id()
    notes = elf.find(_NOTES)
    if notes is None or not notes.size:
        return False
    try:
        return kernel.space.read(VirtAddr(notes.address + offset), notes.size) == elf.content(notes)
    except EvidenceError:
        return False


def _symbols(elf: ElfFile, offset: int, label: str) -> Symbols | None:
    """What a kernel's file names, moved; per-CPU variables, linked from 0 on until 6.15, do not move."""
    rows, strings = elf.symbols()
    kinds = rows["info"] & 15
    per_cpu = elf.find(_PER_CPU)
    stays = rows["shndx"] == (per_cpu.number if per_cpu is not None and not per_cpu.address else _UNDEFINED)
    kept = rows[
        ((rows["value"] >= np.uint64(_LINKED)) | stays)
        & (rows["shndx"] != _UNDEFINED)
        & (rows["shndx"] < _RESERVED)
        & (kinds <= _FUNCTION)
    ]
    if not len(kept):
        return None
    moved = np.where(kept["value"] >= np.uint64(_LINKED), np.uint64(offset % _TOP), np.uint64(0))
    names = [text_at(strings, at) for at in kept["name"].tolist()]
    pairs = zip((kept["info"] & 15).tolist(), (kept["info"] >> 4).tolist(), strict=True)
    homes = [elf.sections[home] if home < len(elf.sections) else None for home in kept["shndx"].tolist()]
    letters = "".join(_letter(*pair, home) for pair, home in zip(pairs, homes, strict=True))
    addresses = kept["value"].astype(np.uint64) + moved
    return Symbols(addresses, names, letters, f"symbols of {label}", kept["size"].copy())


def _letter(kind: int, binding: int, home: Section | None) -> str:
    """As nm(1) has it: of a label without a type, by the section that it is in."""
    executable = home is not None and bool(home.flags & EXEC)
    letter = "t" if kind == _FUNCTION or (kind != _OBJECT and executable) else "d"
    return letter.upper() if binding == _GLOBAL else letter


def each_reference_said(system: System, references: tuple[Reference, ...]) -> Iterator[Said | Gap]:
    """What files from outside say of the kernel beside what the image says: its types, and where its symbols are.

    A kernel's file of another build says nothing of this one.
    """
    for reference in references:
        try:
            yield from _types_said(system, reference)
            yield from _symbols_said(system, reference)
        except EvidenceError as fault:
            yield Gap(reference.source.label, str(fault))


def _types_said(system: System, reference: Reference) -> Iterator[Said | Gap]:
    label = reference.source.label
    if not _speaks_of(system.kernel, reference):
        if reference.source.kind is Kind.TYPES:
            yield Gap(label, "its types have another size than those of this kernel: they are of another one")
        return
    digest = reference.types_digest()
    symbols = system.kernel.symbols
    start, stop = symbols.find("__start_BTF"), symbols.find("__stop_BTF")
    if not digest or start is None or stop is None or not 0 < stop - start <= _MAX_BTF:
        return
    try:
        found = hashlib.sha256(system.kernel.space.read(start, stop - start)).hexdigest()
    except EvidenceError as fault:
        yield Gap(f"BTF in the image, to compare with {label}", str(fault))
        return
    yield Said(subject="BTF", source="the image", value=f"sha256 {found}", span=system.spans(start, 64))
    yield Said(subject="BTF", source=label, value=f"sha256 {digest}")


def _symbols_said(system: System, reference: Reference) -> Iterator[Said]:
    """Every symbol that both have only once, as one claim; those that are elsewhere also one by one, up to 20."""
    theirs = reference.symbols(system.kernel)
    if theirs is None:
        return
    ours = system.kernel.symbols
    if ours.source == theirs.source:
        return
    shared = [name for name in sorted(set(theirs.names) & set(ours.names)) if _once(ours, name) and _once(theirs, name)]
    places = [(name, ours.address(name), theirs.address(name)) for name in shared]
    subject = f"addresses of {len(places):,} symbols"
    for source, column in (("kallsyms", 1), (reference.source.label, 2)):
        digest = hashlib.sha256(
            "\n".join(f"{place[0]} {place[column]:x}" for place in places).encode("utf-8")
        ).hexdigest()
        yield Said(subject=subject, source=source, value=f"sha256 {digest[:16]}")
    for name, our, their in [place for place in places if place[1] != place[2]][:_MOST_DIFFERENCES]:
        yield Said(subject=f"address of {name}", source="kallsyms", value=f"{our:#x}")
        yield Said(subject=f"address of {name}", source=reference.source.label, value=f"{their:#x}")


def _once(symbols: Symbols, name: str) -> bool:
    return len(symbols.all_of(name)) == 1
