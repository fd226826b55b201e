"""Text and read-only data against what the vendor shipped.

Both facts come out of one pass over the files that were given, since reading a package takes seconds.
"""

from functools import lru_cache
from typing import NamedTuple

import msgspec

from hypervigil.core.errors import EvidenceError, MissingDescription
from hypervigil.core.facts import Absent, Gap
from hypervigil.extract.loading import Subject, extracts
from hypervigil.extract.text import each_text, missing_pages, unaccused
from hypervigil.facts.code import CodeImage
from hypervigil.facts.kernel import VendorData, VendorText
from hypervigil.facts.pointers import Section
from hypervigil.linux.system import KERNEL, System
from hypervigil.linux.text.code import Code, read_code
from hypervigil.linux.text.registry import Registry, read_registry
from hypervigil.linux.vendor.comparison import Compared, compare_data, compare_text, note_change
from hypervigil.linux.vendor.constants import kernel_constants, module_constants
from hypervigil.linux.vendor.files import Kind, Source
from hypervigil.linux.vendor.matching import Failure, Match, Mismatch, each_match
from hypervigil.memory.symbols import Symbols

_NOT_COVERED = "no file that was given has it"
_NOT_GIVEN = "no package was given (--package)"


class _Outcome(NamedTuple):
    """What all files together gave."""

    text: tuple[CodeImage, ...]
    data: tuple[CodeImage, ...]
    text_gaps: tuple[Gap, ...]
    data_gaps: tuple[Gap, ...]
    unused: tuple[str, ...]


@extracts(VendorText)
def vendor_text(subject: Subject) -> VendorText | Absent:
    """Text of the kernel and its modules against packages."""
    if not _objects(subject):
        return Absent(_NOT_GIVEN)
    found = _compared(subject)
    rests_on = _trusted(subject, found.text)
    return VendorText(images=found.text, gaps=found.text_gaps, unused=found.unused, rests_on=rests_on)


@extracts(VendorData)
def vendor_data(subject: Subject) -> VendorData | Absent:
    """Read-only data of the kernel and its modules against packages."""
    if not _objects(subject):
        return Absent(_NOT_GIVEN)
    found = _compared(subject)
    rests_on = _trusted(subject, found.data)
    return VendorData(images=found.data, gaps=found.data_gaps, unused=found.unused, rests_on=rests_on)


def _objects(subject: Subject) -> tuple[Source, ...]:
    """The files that may hold objects; types are none."""
    return tuple(one.source for one in subject.references if one.source.kind is not Kind.TYPES)


def _trusted(subject: Subject, images: tuple[CodeImage, ...]) -> tuple[str, ...]:
    """The image's descriptions, and the files that something was compared with."""
    return tuple(sorted({*subject.system.rests_on, *(image.reference for image in images)}))


def _compared(subject: Subject) -> _Outcome:
    """Compare everything that any of the files covers.

    Raises:
        MissingDescription: none of them is of this kernel or of a module that is loaded.
    """
    found = _outcome(subject)
    if isinstance(found, str):
        raise MissingDescription(found)
    return found


@lru_cache(maxsize=1)
def _outcome(subject: Subject) -> _Outcome | str:
    """What all files gave, or why they gave nothing; kept for the other fact, which asks next."""
    run = _Run(subject.system)
    for source in _objects(subject):
        run.read(source)
    return run.outcome()


def _by_name(image: CodeImage) -> tuple[str, str]:
    return image.name, image.reference


class _Run:
    """One pass over all files."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.text: list[CodeImage] = []
        self.data: list[CodeImage] = []
        self.text_gaps: list[Gap] = list(system.modules.gaps)
        self.data_gaps: list[Gap] = list(system.modules.gaps)
        self.refused: list[Gap] = []
        self.of_no_use: list[str] = []
        self.codes = {code.owner: code for code in self._codes()}
        self.registry: Registry = read_registry(system, tuple(self.codes.values()))
        self.text_gaps += self.registry.gaps

    def _codes(self) -> list[Code]:
        return [read_code(self.system.kernel, *text) for text in each_text(self.system, self.text_gaps)]

    def read(self, source: Source) -> None:
        """Compare with one file. Another build of a module beside matching ones is a change; else it is refused.

        Matching modules prove nothing beside another kernel: packages of two revisions share what did not change.
        """
        matched = False
        others: list[Mismatch] = []
        failures: list[Failure] = []
        for said in each_match(self.system, source):
            if isinstance(said, Match):
                matched = True
                self._compare(said)
            elif isinstance(said, Mismatch):
                others.append(said)
            else:
                failures.append(said)
        self.refused += [Gap(one.label, f"{one.name}: {one.why}" if one.name else one.why) for one in failures]
        wrong = next((other for other in others if other.name == KERNEL or not matched), None)
        if wrong is not None:
            self.refused.append(Gap(source.label, str(wrong)))
        else:
            for other in others:
                self._impostor(other)
        if not (matched or others or failures):
            self.of_no_use.append(f"{source.label}, which has neither a kernel nor a module that is loaded")

    def _compare(self, match: Match) -> None:
        name = match.name
        for section in match.astray:
            gaps = self.text_gaps if section.executable else self.data_gaps
            gaps.append(
                Gap(f"{section.name} of {name}", "it is not where such sections belong, as far as memory tells")
            )
        if match.unresolved:
            gap = Gap(f"what {name} refers to", f"nobody defines {', '.join(match.unresolved[:8])}")
            self.text_gaps.append(gap)
            self.data_gaps.append(gap)
        code = self.codes.get(name)
        symbols = self.system.symbols_of(name)
        if code is not None and symbols is not None:
            self._compare_text(match, code, symbols)
        elif match.module is None or any(area.section is Section.TEXT for area in match.module.areas):
            self.text_gaps.append(Gap(f"text of {name}", "it or its symbols cannot be read"))
        self._compare_data(match)

    def _compare_text(self, match: Match, code: Code, symbols: Symbols) -> None:
        name = match.name
        try:
            compared = compare_text(self.system, self.registry, code, match.built, match.tables, symbols)
            if self.system.kernel.symbols.losses is not None:
                compared = compared._replace(image=unaccused(compared.image, self.text_gaps))
            self._keep(self.text, self.text_gaps, compared)
        except EvidenceError as fault:
            self.text_gaps.append(Gap(f"text of {name}", str(fault)))
        self.text_gaps += missing_pages(code)

    def _compare_data(self, match: Match) -> None:
        name = match.name
        try:
            constants = (
                kernel_constants(self.system, match.built)
                if match.module is None
                else module_constants(self.system, match.module, match.built)
            )
            self._keep(self.data, self.data_gaps, compare_data(self.system, name, match.built.source, constants))
        except EvidenceError as fault:
            self.data_gaps.append(Gap(f"read-only data of {name}", str(fault)))

    @staticmethod
    def _keep(images: list[CodeImage], gaps: list[Gap], compared: Compared) -> None:
        """Keep a comparison; what another file said of the same object stays, and is not said twice."""
        known = {one for image in images if image.name == compared.image.name for one in image.deviations}
        new = tuple(one for one in compared.image.deviations if one not in known)
        images.append(msgspec.structs.replace(compared.image, deviations=new))
        gaps += compared.gaps

    def _impostor(self, other: Mismatch) -> None:
        """A module of another build than the one in the package of this very kernel."""
        self.data_gaps.append(Gap(f"read-only data of {other.name}", f"{other.label} {other}"))
        found = note_change(self.system, other.name, other.found, other.wanted)
        if found is None:
            self.text_gaps.append(Gap(f"text of {other.name}", f"{other.label} {other}"))
        else:
            self.text.append(CodeImage(name=other.name, reference=other.label, compared=1, deviations=(found,)))

    def outcome(self) -> _Outcome | str:
        """What was compared.

        A file that could not be used is a gap while anything is not covered, else only named; if none gave anything,
        they are the reason.
        """
        if not self.text:
            why = "; ".join([*(str(gap) for gap in self.refused), *self.of_no_use])
            return why or "nothing was given that text could be compared with"
        known = {KERNEL, *(module.name for module in self.system.modules.items)}
        covered = {image.name for image in (*self.text, *self.data)}
        lacking = [Gap(name, _NOT_COVERED) for name in known - covered]
        refused = self.refused if lacking else []
        spare = [] if lacking else [str(gap) for gap in self.refused]
        return _Outcome(
            tuple(sorted(self.text, key=_by_name)),
            tuple(sorted(self.data, key=_by_name)),
            tuple(sorted({*self.text_gaps, *refused, *lacking})),
            tuple(sorted({*self.data_gaps, *refused, *lacking})),
            (*self.of_no_use, *spare),
        )
