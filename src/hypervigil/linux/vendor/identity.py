"""Which build an object in memory is: the build ids that linkers write into kernels and modules.

include/linux/elfnote.h; a module's is its section ``.note.gnu.build-id``, and ``struct module`` may have a
``srcversion``, a digest of its sources, which its file has too (scripts/mod/sumversion.c).
"""

from collections.abc import Mapping

from hypervigil.core.errors import EvidenceError
from hypervigil.core.units import VirtAddr
from hypervigil.linux.members import number
from hypervigil.linux.modules import Module
from hypervigil.linux.vendor.elf import ElfFile, each_note
from hypervigil.memory.kernel import Kernel

_NOTE = ".note.gnu.build-id"
_GNU_BUILD_ID = 3
_MAX_NOTES = 4096
_MAX_NOTE = 64
_MODINFO = ".modinfo"


def running_build_id(kernel: Kernel) -> str:
    """The build id of the kernel in memory, from its notes, else from VMCOREINFO; empty if neither has it."""
    try:
        start, stop = kernel.symbols.address("__start_notes"), kernel.symbols.address("__stop_notes")
        found = build_id_of(kernel.space.read(start, stop - start)) if 0 < stop - start <= _MAX_NOTES else ""
    except EvidenceError:
        found = ""
    if found:
        return found
    info = kernel.location.vmcoreinfo
    return "" if info is None else info[0].build_id or ""


def loaded_build_id(kernel: Kernel, places: Mapping[str, int]) -> str:
    """The build id of a loaded module, given where its sections are; empty if it has none."""
    place = places.get(_NOTE)
    if place is None:
        return ""
    try:
        return build_id_of(kernel.space.read(VirtAddr(place), _MAX_NOTE))
    except EvidenceError:
        return ""


def loaded_srcversion(kernel: Kernel, module: Module) -> str:
    """The digest of a loaded module's sources; empty if it has none."""
    try:
        address = number(kernel.object("struct module", module.address), "srcversion")
        return kernel.space.text(VirtAddr(address), _MAX_NOTE) if address else ""
    except EvidenceError:
        return ""


def modinfo_of(elf: ElfFile, field: str) -> str:
    """A field of what a module's file says of itself, such as ``srcversion`` or ``depends``; empty if it has none."""
    section = elf.find(_MODINFO)
    fields = b"" if section is None else elf.content(section)
    start = f"{field}=".encode("latin-1")
    return next((f.removeprefix(start).decode("latin-1") for f in fields.split(b"\0") if f.startswith(start)), "")


def build_id_of(notes: bytes) -> str:
    """The build id in a section of notes, hexadecimal; empty if there is none."""
    found = (body.hex() for name, kind, body in each_note(notes) if name == b"GNU" and kind == _GNU_BUILD_ID)
    return next(found, "")
