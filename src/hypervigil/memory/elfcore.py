"""ELF cores behind the `Reader` protocol; the format is in `hypervigil.decode.elfcore`."""

from hypervigil.core.errors import UnsupportedEvidence
from hypervigil.core.facts import Gap
from hypervigil.decode.elfcore import LoadSegment, decode_elf_core
from hypervigil.memory.mapped import MappedMemory, Piece

_MAX_GAPS = 64


def read_elf_core(buffer: memoryview, evidence: str) -> MappedMemory:
    """Map the memory of an ELF core by physical address.

    Segments that several virtual ranges share (dumps with paging, the kernel's text in kdump's) are one memory.

    Raises:
        UnsupportedEvidence: another machine's, no core, or a core without any memory.
        DecodeError: the headers are damaged.
    """
    core = decode_elf_core(buffer)
    held = [segment for segment in core.segments if segment.file_size]
    if not held:
        raise UnsupportedEvidence(
            "an ELF core without memory segments, as Xen's dump-core writes; take the host's memory instead"
        )
    gaps = [Gap("notes of the core", fault) for fault in core.faults]
    gaps += _undumped([segment for segment in held if segment.memory_size > segment.file_size])
    return MappedMemory(
        buffer,
        [Piece(segment.physical, segment.physical + segment.file_size, segment.offset) for segment in held],
        evidence=evidence,
        format_name="elf",
        zero_is_missing=False,
        registers=core.cpus,
        vmcoreinfo=bytes(buffer[slice(*core.vmcoreinfo)]) if core.vmcoreinfo else None,
        gaps=tuple(gaps),
    )


def _undumped(segments: list[LoadSegment]) -> list[Gap]:
    """Gaps for what segments name and do not hold; one for all if a filter left out page after page."""
    why = "the dump names it and does not hold it"
    if len(segments) > _MAX_GAPS:
        size = sum(segment.memory_size - segment.file_size for segment in segments)
        return [Gap(f"{size} bytes in {len(segments)} places of physical memory", why)]
    return [
        Gap(f"physical {at.physical + at.file_size:#x} to {at.physical + at.memory_size:#x}", why) for at in segments
    ]
