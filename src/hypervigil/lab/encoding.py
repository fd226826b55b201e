"""Instructions that can be moved, or written in another way, without a change of meaning."""

import capstone

_BRANCH = 5
_MOV_STORE, _MOV_LOAD = 0x89, 0x8B


def movable(code: bytes) -> bytes | None:
    """The whole instructions that cover the first five bytes, if all of them mean the same elsewhere."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    size = 0
    for _, length, mnemonic, operands in decoder.disasm_lite(code, 0):
        if "rip" in operands or mnemonic[0] == "j" or mnemonic in {"call", "ret", "int3", "loop"}:
            return None
        size += length
        if size >= _BRANCH:
            return code[:size]
    return None


def same_meaning(code: bytes, start: int) -> tuple[int, bytes] | None:
    """A `mov` between registers in `code` and its other encoding: (offset, new bytes), or None.

    Source: Intel SDM volume 2, MOV: 89 /r stores reg to r/m, 8b /r loads reg from r/m; with two registers either
    says the same when the operands, and the bits of REX that extend them, change places.
    """
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    for address, length, mnemonic, _ in decoder.disasm_lite(code, 0):
        rex, opcode, operands = code[address : address + 3].ljust(3, b"\0")
        if address < start or length != 3 or mnemonic != "mov" or rex & 0xF8 != 0x48 or operands < 0xC0:  # noqa: PLR2004 - REX.W and two registers
            continue
        if opcode in {_MOV_STORE, _MOV_LOAD}:
            swapped = 0x48 | (rex & 1) << 2 | (rex >> 2) & 1
            other = _MOV_STORE ^ _MOV_LOAD ^ opcode
            return address, bytes([swapped, other, 0xC0 | (operands & 7) << 3 | (operands >> 3) & 7])
    return None
