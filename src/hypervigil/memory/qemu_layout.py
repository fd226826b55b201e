"""Which guest-physical addresses of a QEMU stand where in its process, from its monitor or from its command line.

Sources: QEMU softmmu/memory.c (text of ``info mtree -f``), monitor/misc.c (``gpa2hva``), hw/i386/pc_piix.c and
hw/i386/pc_q35.c (how much memory lies below 4 GiB: pc all of it below 3.5 GiB, else 3 GiB; q35 all of it below
2.75 GiB, else 2 GiB; the rest begins at 4 GiB), qemu-options.hx (-m, -machine).
"""

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from hypervigil.core.errors import DecodeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypervigil.memory.qmp import Monitor

MAX_BLOCKS = 4096
"""Pieces of memory of one machine that are believed."""

_VIEW = re.compile(r"^FlatView #\d+$", re.MULTILINE)
_SYSTEM_SPACE = re.compile(r'^ AS "memory", root: ', re.MULTILINE)
_RANGE = re.compile(
    r"^  ([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (\w+)\): (.{0,200}?)(?: @([0-9a-f]{16}))?(?: KVM)?$"
)
_HOST = re.compile(r"is 0x([0-9a-f]{1,16})\s*$")
_MAP = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (r[w-])")
_SIZE = re.compile(r"(\d{1,19})([bkmgtBKMGT]?)")
_UNITS = {"": 20, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_ADDRESS_SPACE = 1 << 52
_GIB = 1 << 30
_VGA = (0xA0000, 0xC0000)
_AMD_HOLE = 1010 * _GIB  # from here on memory may be moved past the HyperTransport hole


class Block(msgspec.Struct, frozen=True, order=True):
    """Guest-physical addresses ``[start, end)`` stand in the process from virtual address `host` on."""

    start: int
    end: int
    host: int


def blocks_from_monitor(monitor: "Monitor") -> tuple[Block, ...]:
    """Ask for the flat view of guest memory and for the host address of both ends of each piece of RAM or ROM.

    RAM of devices (`ramd`: a BAR that is passed through) is left out, for reading it may have effects.

    Raises:
        DecodeError: an answer of another form, or a piece that is not linear in the process.
        UsageError: the monitor is gone.
    """
    blocks = []
    for start, end in _ram(monitor.ask("info mtree -f")):
        host = _host(monitor, start)
        if _host(monitor, end - 1) - host != end - 1 - start:
            raise DecodeError("info mtree", f"guest memory {start:#x} to {end:#x} is not one piece of the process")
        blocks.append(Block(start, end, host))
    return tuple(blocks)


def _ram(text: str) -> list[tuple[int, int]]:
    """Half-open ranges of RAM and ROM of the system's address space, neighbours of one block of memory joined."""
    for view in _VIEW.split(text.replace("\r", ""))[1:]:
        if _SYSTEM_SPACE.search(view):
            break
    else:
        raise DecodeError("info mtree", "no address space of the system in the answer")
    found: list[tuple[int, int, str, int]] = []
    for line in view.splitlines():
        match = _RANGE.match(line)
        if match is None or match[3] not in {"ram", "rom"}:
            continue
        start, end, offset = int(match[1], 16), int(match[2], 16) + 1, int(match[5] or "0", 16)
        if not start < end <= _ADDRESS_SPACE or (found and start < found[-1][1]):
            raise DecodeError("info mtree", f"a range from {start:#x} to {end:#x} out of order")
        last = found[-1] if found else (0, 0, "", 0)
        if last[1:3] == (start, match[4]) and last[3] + start - last[0] == offset:
            found[-1] = (last[0], end, last[2], last[3])
        else:
            found.append((start, end, match[4], offset))
    if not 0 < len(found) <= MAX_BLOCKS:
        raise DecodeError("info mtree", f"{len(found)} pieces of memory")
    return [(start, end) for start, end, _, _ in found]


def _host(monitor: "Monitor", address: int) -> int:
    answer = monitor.ask(f"gpa2hva {address:#x}")
    match = _HOST.search(answer)
    if match is None:
        raise DecodeError("gpa2hva", f"{answer.strip()!r:.100}")
    return int(match[1], 16)


def blocks_from_command_line(arguments: "Sequence[str]", maps: str) -> tuple[Block, ...]:
    """Work out where memory lies when no monitor can be asked: the one mapping of exactly the machine's size.

    Args:
        arguments: the process' command line.
        maps: text of its /proc/PID/maps.

    Raises:
        UsageError: the command line leaves the layout open, or no mapping or several fit.
    """
    size = memory_size(arguments)
    below = _below_4g(arguments, size)
    fitting = [start for start, end in readable_maps(maps, written=True) if end - start == size]
    if len(fitting) != 1:
        raise UsageError(f"{len(fitting)} mappings of {size} bytes: give a QMP socket of this QEMU")
    host = fitting[0]
    low, high = min(size, below), size - min(size, below)
    blocks = [Block(0, _VGA[0], host), Block(_VGA[1], low, host + _VGA[1])]
    if high:
        blocks.append(Block(4 * _GIB, 4 * _GIB + high, host + low))
    return tuple(blocks)


def memory_size(arguments: "Sequence[str]") -> int:
    """Bytes of guest memory that the option -m gives.

    Raises:
        UsageError: no such option, or a form that is not known.
    """
    value = last_option(arguments, "m")
    size = option_fields(value).get("size") or value.split(",", 1)[0]
    match = _SIZE.fullmatch(size)
    if match is None or not int(match[1]):
        raise UsageError(f"-m {value!r:.60} is not understood: give a QMP socket of this QEMU")
    return int(match[1]) << _UNITS[match[2].lower()]


def _below_4g(arguments: "Sequence[str]", size: int) -> int:
    """Bytes of memory below 4 GiB; more than `size` where all of it is."""
    machine = last_option(arguments, "machine", "M")
    kind = option_fields(machine).get("type") or machine.split(",", 1)[0]
    several = sum("memdev=" in argument or '"memdev"' in argument for argument in arguments)
    if "max-ram-below-4g" in machine or several > 1 or not _VGA[1] < size < _AMD_HOLE:
        raise UsageError("the layout of memory is not the usual one: give a QMP socket of this QEMU")
    if kind == "q35" or kind.startswith("pc-q35-"):
        return 2 * _GIB if size >= 0xB000_0000 else 0xB000_0000  # noqa: PLR2004 - see the sources above
    if kind == "pc" or kind.startswith("pc-i440fx-"):
        return 3 * _GIB if size >= 0xE000_0000 else 0xE000_0000  # noqa: PLR2004 - see the sources above
    raise UsageError(f"the layout of machine type {kind!r:.40} is not known: give a QMP socket of this QEMU")


def readable_maps(maps: str, *, written: bool = False) -> list[tuple[int, int]]:
    """Half-open ranges of a process that can be read (and written, if asked), neighbours not joined."""
    found = []
    for line in maps.splitlines():
        match = _MAP.match(line)
        if match is not None and (not written or match[3] == "rw"):
            found.append((int(match[1], 16), int(match[2], 16)))
    return found


def each_option(arguments: "Sequence[str]", *names: str) -> list[str]:
    """Values of an option of QEMU's command line, in order, with one or two dashes."""
    wanted = {dashes + name for name in names for dashes in ("-", "--")}
    return [value for option, value in pairwise(arguments) if option in wanted]


def last_option(arguments: "Sequence[str]", *names: str) -> str:
    """The value that counts of an option that may be given several times; empty if it is not given."""
    values = each_option(arguments, *names)
    return values[-1] if values else ""


def option_fields(value: str) -> dict[str, str]:
    """Fields of an option's value, in the form ``a=b,c=d`` or as JSON; `,,` stands for a comma."""
    if value.startswith("{"):
        try:
            decoded = json.loads(value)
        except (ValueError, RecursionError):
            return {}
        return {key: str(field) for key, field in decoded.items()} if isinstance(decoded, dict) else {}
    fields = (part.replace("\0", ",").partition("=") for part in value.replace(",,", "\0").split(","))
    return {key: content for key, _, content in fields}
