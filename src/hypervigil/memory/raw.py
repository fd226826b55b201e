"""Raw images: byte n of the file is physical address n, as QMP pmemsave, dd and LiME's padded format write them.

Nothing in the file says what was not memory or could not be read; such places are zeros, or holes of a sparse file.
"""

from hypervigil.memory.mapped import MappedMemory, Piece


def read_raw(buffer: memoryview, evidence: str) -> MappedMemory:
    """Take the whole buffer as physical memory from address 0 on."""
    return MappedMemory(buffer, [Piece(0, len(buffer), 0)], evidence=evidence, format_name="raw", zero_is_missing=True)
