"""VMCOREINFO, the text by which a kernel describes itself to those who read its memory.

Lines are ``KEY=value``, ``SYMBOL(name)=hex``, ``NUMBER(name)=decimal or 0x hex``, ``OFFSET(type.member)=decimal``,
``SIZE(type)=decimal``, ``LENGTH(name)=decimal`` and ``CONFIG(name)=y``, each ended by a newline. The kernel writes it
into one page (`VMCOREINFO_BYTES`; more in kernels with larger pages) and hypervisors keep a copy in notes.

The text lies in writable memory and stale copies abound, so nothing in it is believed for being there: the caller
compares it with page tables and symbols. A key with two different values is kept as a contradiction.

Sources: Linux Documentation/admin-guide/kdump/vmcoreinfo.rst; include/linux/crash_core.h (VMCOREINFO_* macros, moved to
include/linux/vmcore_info.h in 6.9); arch/x86/kernel/crash_core_64.c (KERNELOFFSET, phys_base); 0935288c6e00
"kdump: append kernel build-id string to VMCOREINFO" (5.9).
"""

import re
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from hypervigil.core.errors import DecodeError
from hypervigil.core.units import VirtAddr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_SIZE = 65536
"""Bytes of text that are read at most."""

_MIN_LINES = 8
_START = re.compile(rb"OSRELEASE=[\x21-\x7e]{1,64}\n[A-Z]")
_LINE = re.compile(r"(?:([A-Z]+)\(([\w.\[\]$-]{1,256})\)|([A-Za-z_][\w.-]{0,255}))=([\x20-\x7e]{0,512})")
_HEX = re.compile(r"[0-9a-fA-F]{1,16}")
_NUMBER = re.compile(r"-?[0-9]{1,20}|0x[0-9a-fA-F]{1,16}")
_COUNT = re.compile(r"[0-9]{1,20}")
_BUILD_ID = re.compile(r"(?:[0-9a-f]{2}){1,64}")

Buffer: TypeAlias = "bytes | bytearray | memoryview"


class VmcoreInfo(msgspec.Struct, frozen=True):
    """A decoded text. Values are as the kernel wrote them; symbols are relocated by KASLR already.

    Attributes:
        osrelease: as `uname -r` has it.
        build_id: lower-case hex of the GNU build id, empty where the kernel does not give it (before 5.9).
        page_size: bytes, None if absent.
        kernel_offset: how far KASLR moved the kernel's virtual addresses, in bytes; None if absent.
        symbols: virtual addresses by name (of some per-CPU or heap objects the value stored in a pointer).
        numbers: signed, by name.
        offsets: bytes from the start of the type, by `type.member`.
        sizes: bytes, by type.
        lengths: elements, by array.
        config: by name.
        other: all remaining `KEY=value` lines.
        contradictions: keys that occur with different values, as sentences; the first value stands above.
        raw: the text that was decoded, without what follows it in memory.
    """

    osrelease: str
    build_id: str
    page_size: int | None
    kernel_offset: int | None
    symbols: "Mapping[str, VirtAddr]"
    numbers: "Mapping[str, int]"
    offsets: "Mapping[str, int]"
    sizes: "Mapping[str, int]"
    lengths: "Mapping[str, int]"
    config: "Mapping[str, str]"
    other: "Mapping[str, str]"
    contradictions: tuple[str, ...]
    raw: str


def find_vmcoreinfo(buffer: Buffer) -> "Iterator[int]":
    """Offsets of everything in a buffer that begins like a VMCOREINFO, ascending.

    Some are no VMCOREINFO or a stale one: `decode_vmcoreinfo` and the page tables tell.
    """
    for match in _START.finditer(buffer):
        yield match.start()


def decode_vmcoreinfo(data: Buffer) -> VmcoreInfo:
    """Decode the text at the start of `data`, which may go on behind it.

    The text ends at the first NUL or at the first line that is not of the form, and must by then have at least
    eight lines, the first being OSRELEASE; a form that no kernel writes is an error and not skipped.

    Args:
        data: the text and what follows; at most `MAX_SIZE` bytes are looked at.

    Raises:
        DecodeError: too few lines, a malformed value, or no OSRELEASE in first place.
    """
    text = bytes(data[:MAX_SIZE]).split(b"\0", 1)[0].decode("latin-1")
    lines = _lines(text)
    if len(lines) < _MIN_LINES or lines[0][:2] != ("", "OSRELEASE"):
        raise DecodeError("vmcoreinfo", f"{len(lines)} lines of the form, the first one must be OSRELEASE", 0)
    groups: dict[str, dict[str, str]] = {}
    contradictions = []
    for group, key, value in lines:
        known = groups.setdefault(group, {}).setdefault(key, value)
        if known != value:
            contradictions.append(f"{_spelled(group, key)} is {known} and {value}")
    return _assemble(groups, tuple(contradictions), text[: _text_length(lines)])


def _lines(text: str) -> list[tuple[str, str, str]]:
    """Group (empty for a bare key), key and value of each line up to the first that is not of the form."""
    found = []
    for line in text.split("\n")[:-1]:
        match = _LINE.fullmatch(line)
        if match is None:
            break
        group, key, bare, value = match.groups()
        found.append((group or "", key or bare, value))
    return found


def _spelled(group: str, key: str) -> str:
    return f"{group}({key})" if group else key


def _text_length(lines: list[tuple[str, str, str]]) -> int:
    return sum(len(_spelled(group, key)) + len(value) + 2 for group, key, value in lines)


def _assemble(groups: dict[str, dict[str, str]], contradictions: tuple[str, ...], raw: str) -> VmcoreInfo:
    bare = groups.pop("", {})
    build_id = bare.pop("BUILD-ID", "")
    if build_id and not _BUILD_ID.fullmatch(build_id):
        raise DecodeError("vmcoreinfo", f"BUILD-ID is {build_id!r}")
    pages = _each({"PAGESIZE": bare.pop("PAGESIZE")}, _count) if "PAGESIZE" in bare else {}
    moved = _each({"KERNELOFFSET": bare.pop("KERNELOFFSET")}, _hexadecimal) if "KERNELOFFSET" in bare else {}
    return VmcoreInfo(
        osrelease=bare.pop("OSRELEASE"),
        build_id=build_id,
        page_size=pages.get("PAGESIZE"),
        kernel_offset=moved.get("KERNELOFFSET"),
        symbols={name: VirtAddr(value) for name, value in _each(groups.pop("SYMBOL", {}), _hexadecimal).items()},
        numbers=_each(groups.pop("NUMBER", {}), _number),
        offsets=_each(groups.pop("OFFSET", {}), _count),
        sizes=_each(groups.pop("SIZE", {}), _count),
        lengths=_each(groups.pop("LENGTH", {}), _count),
        config=groups.pop("CONFIG", {}),
        other=bare | {_spelled(group, key): value for group, rest in groups.items() for key, value in rest.items()},
        contradictions=contradictions,
        raw=raw,
    )


def _each(values: dict[str, str], convert: "Callable[[str], int | None]") -> dict[str, int]:
    converted: dict[str, int] = {}
    for key, value in values.items():
        number = convert(value)
        if number is None:
            raise DecodeError("vmcoreinfo", f"{key} is {value!r}, not a number of its form")
        converted[key] = number
    return converted


def _hexadecimal(text: str) -> int | None:
    return int(text, 16) if _HEX.fullmatch(text) else None


def _number(text: str) -> int | None:
    return int(text, 0 if text.startswith("0x") else 10) if _NUMBER.fullmatch(text) else None


def _count(text: str) -> int | None:
    return int(text) if _COUNT.fullmatch(text) else None
