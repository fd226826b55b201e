"""What a reader of a violation should see: bytes as they stand in the evidence, and what they mean as code."""

import re
from collections.abc import Iterator

import capstone

from hypervigil.core.errors import EvidenceError
from hypervigil.core.evidence import Span
from hypervigil.core.finding import CodeRef, Finding, Violation
from hypervigil.core.report import Exhibit, Line
from hypervigil.core.units import VirtAddr
from hypervigil.linux.system import System

_MAX_SIZE = 256
_MAX_EXHIBITS = 400
_MAX_LINES = 24
_BRANCHES = ("call", "j")
_LEAST_PADDING = 4
_ADDRESS = re.compile("0x[0-9a-f]{1,16}")


def exhibits(system: System, findings: tuple[Finding, ...]) -> Iterator[Exhibit]:
    """Every exhibit that the violations ask for, in their order; at most 400 in a report."""
    left = _MAX_EXHIBITS
    for finding in findings:
        for index, violation in enumerate(finding.violations):
            for code in _asked(violation):
                if not left:
                    return
                left -= 1
                yield _exhibit(system, finding.check, index, code)


def _asked(violation: Violation) -> tuple[CodeRef, ...]:
    return violation.code


def _exhibit(system: System, check: str, violation: int, code: CodeRef) -> Exhibit:
    size = max(1, min(code.size, _MAX_SIZE))
    spans: tuple[Span, ...] = ()
    try:
        found = system.kernel.space.read(VirtAddr(code.address), size)
        spans = system.spans(code.address, size)
    except EvidenceError as fault:
        return Exhibit(
            check=check,
            violation=violation,
            title=code.title,
            address=code.address,
            spans=(),
            expected=code.expected,
            note=f"these bytes cannot be shown: {fault}",
        )
    expected = bytes.fromhex(code.expected)
    return Exhibit(
        check=check,
        violation=violation,
        title=code.title,
        address=code.address,
        spans=spans,
        found=found.hex(),
        expected=code.expected,
        after=disassemble(system, found, code.address) if code.code else (),
        before=disassemble(system, expected, code.address) if code.code and expected else (),
    )


def disassemble(system: System, data: bytes, address: int) -> tuple[Line, ...]:
    """The instructions of x86-64 code, branch targets named by the symbols they lead to."""
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    lines = []
    for at, size, mnemonic, operands in engine.disasm_lite(_without_padding(data), address):
        start = at - address
        text = f"{mnemonic} {operands}{_destination(system, mnemonic, operands)}".rstrip()
        lines.append(Line(at, data[start : start + size].hex(), text))
        if len(lines) == _MAX_LINES:
            break
    return tuple(lines)


def _destination(system: System, mnemonic: str, operands: str) -> str:
    """Where a branch leads, or what a loaded address is the exact start of."""
    last = operands.rpartition(" ")[2]
    if not _ADDRESS.fullmatch(last):
        return ""
    try:
        target = system.target(int(last, 16))
    except EvidenceError:
        return ""
    if mnemonic.startswith(_BRANCHES) and operands == last:
        return f" <{target}>"
    return f" <{target}>" if target.symbol and not target.offset else ""


def _without_padding(data: bytes) -> bytes:
    """Cut padding off the end, so that code in a cave is not followed by a screen of it."""
    for padding in (b"\x00", b"\xcc"):
        kept = data.rstrip(padding)
        if kept and len(data) - len(kept) >= _LEAST_PADDING:
            return kept
    return data
