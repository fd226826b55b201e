"""LiME images behind the `Reader` protocol; the format is in `hypervigil.decode.lime`."""

from hypervigil.core.errors import DecodeError
from hypervigil.core.facts import Gap
from hypervigil.decode.lime import each_lime_range
from hypervigil.memory.mapped import MappedMemory, Piece


def read_lime(buffer: memoryview, evidence: str) -> MappedMemory:
    """Map the ranges of a LiME file; damage after the first range leaves a gap.

    Raises:
        UnsupportedEvidence: the compressed variant of AVML.
        DecodeError: not even one range can be read.
    """
    pieces: list[Piece] = []
    gaps: tuple[Gap, ...] = ()
    try:
        pieces.extend(Piece(at.physical, at.physical + at.size, at.offset) for at in each_lime_range(buffer))
    except DecodeError as fault:
        if not pieces:
            raise
        last = max(piece.end for piece in pieces)
        gaps = (Gap(f"ranges after physical {last:#x}", str(fault)),)
    return MappedMemory(buffer, pieces, evidence=evidence, format_name="lime", zero_is_missing=False, gaps=gaps)
