"""The memory of a running QEMU, read from its process while the machine goes on.

The monitor is asked where guest memory stands in the process, the answer is compared with /proc/PID/maps, and the
bytes are read from /proc/PID/mem. The machine is never stopped; its run state is asked for before and after.
What is read here changes all the time: wrap it in `hypervigil.memory.recording.RecordingReader`, whose recording is
the evidence.

Source: Linux Documentation/filesystems/proc.rst (maps, mem, fd, root, cwd, net/unix), unix(7) (SO_PEERCRED).
"""

import mmap
import os
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING

from hypervigil.core.errors import DecodeError, MissingMemory, UsageError
from hypervigil.core.evidence import Span
from hypervigil.core.facts import Gap
from hypervigil.core.units import PhysAddr
from hypervigil.decode.cpustate import CpuState, decode_info_registers
from hypervigil.memory.qemu_layout import (
    Block,
    blocks_from_command_line,
    blocks_from_monitor,
    each_option,
    option_fields,
    readable_maps,
)
from hypervigil.memory.qmp import Monitor, QmpMonitor
from hypervigil.memory.reader import OVERLAP, PhysRange

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WINDOW = 1 << 28
"""Bytes that a bulk scan copies at a time."""

_MAX_PROC = 1 << 24


class QemuMemory:
    """A `LiveReader` over the memory of a QEMU process.

    Args:
        pid: of the process.
        blocks: where guest memory stands in it.
        monitor: asked for registers now and for the run state now and in `disturbances`; None if there is none.
        gaps: what is not certain about the layout.

    Attributes:
        pid: as given.
        status: run state when it was attached, empty without a monitor.

    Raises:
        UsageError: no such process, no permission to read it, or memory that is not mapped in it.
    """

    evidence = "memory"
    format = "live"
    zero_is_missing = False
    vmcoreinfo: bytes | None = None

    def __init__(
        self, pid: int, blocks: tuple[Block, ...], monitor: Monitor | None, gaps: tuple[Gap, ...] = ()
    ) -> None:
        self.pid = pid
        self._blocks = tuple(sorted(blocks))
        self._starts = [block.start for block in self._blocks]
        self._monitor = monitor
        _require_mapped(pid, self._blocks)
        self.status = monitor.status() if monitor else ""
        self._uncertain = gaps
        self.look_again()
        self.ranges = tuple(PhysRange(PhysAddr(block.start), PhysAddr(block.end)) for block in self._blocks)
        try:
            self._memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as fault:
            raise UsageError(f"the memory of process {pid}: {(fault.strerror or '').lower()}; run as root") from fault

    def read(self, address: PhysAddr, size: int) -> bytes:
        """See `Reader.read`; as the bytes are at this moment."""
        return bytes(self.view(address, size))

    def look_again(self) -> None:
        """See `LiveReader.look_again`; a processor may have gone on while its registers were told."""
        self.registers, missing = _registers(self._monitor)
        self.gaps = self._uncertain + missing

    def view(self, address: PhysAddr, size: int) -> memoryview:
        """See `Reader.view`; always a copy."""
        parts = list(self._each_part(address, size))
        buffer = memoryview(bytearray(size))
        for block, at, length in parts:
            self._fill(buffer[at - address : at - address + length], block, at)
        return buffer.toreadonly()

    def each_run(self) -> "Iterator[tuple[PhysAddr, memoryview]]":
        """See `Reader.each_run`; in windows of up to `WINDOW` bytes, all in the same buffer.

        Raises:
            MissingMemory: the process has ended, or does not let a part be read.
        """
        longest = max((block.end - block.start for block in self._blocks), default=0)
        window = memoryview(mmap.mmap(-1, min(WINDOW, longest))) if longest else memoryview(b"")
        for block in self._blocks:
            start = block.start
            while start < block.end:
                end = min(block.end, start + WINDOW)
                run = window[: end - start]
                self._fill(run, block, start)
                yield PhysAddr(start), run.toreadonly()
                start = end if end == block.end else end - OVERLAP

    def spans(self, address: PhysAddr, size: int) -> tuple[Span, ...]:
        """The physical range itself: nothing of a live machine can be reopened unless it was recorded."""
        end = address + sum(length for _, _, length in self._each_part(address, size))
        return (Span(self.evidence, address, end),) if end > address else ()

    def disturbances(self) -> tuple[Gap, ...]:
        """Ask for the run state again: a gap if it is another one than before, or cannot be asked for."""
        if self._monitor is None:
            return (Gap("run state of the machine", "no monitor could be asked"),)
        now = self._monitor.status()
        if now == self.status:
            return ()
        return (Gap("run state of the machine", f"it went from {self.status} to {now} while it was read"),)

    def close(self) -> None:
        """Let go of the process and its monitor."""
        os.close(self._memory)
        if self._monitor is not None:
            self._monitor.close()

    def _each_part(self, address: int, size: int) -> "Iterator[tuple[Block, int, int]]":
        """Block, first address and length of each piece of a range."""
        if size < 0:
            raise MissingMemory(address, size, "a negative size")
        at, end = address, address + size
        index = bisect_right(self._starts, address) - 1
        while at < end:
            block = self._blocks[index] if 0 <= index < len(self._blocks) else None
            if block is None or not block.start <= at < block.end:
                raise MissingMemory(at, end - at, "not memory of the machine")
            length = min(end, block.end) - at
            yield block, at, length
            at, index = at + length, index + 1

    def _fill(self, target: memoryview, block: Block, address: int) -> None:
        """Read into all of `target` what stands from `address` on in one block."""
        done, size = 0, len(target)
        while done < size:
            place = block.host + address - block.start + done
            try:
                count = os.preadv(self._memory, [target[done:]], place)
            except OSError as fault:
                raise MissingMemory(address + done, size - done, f"QEMU's memory: {fault.strerror}") from fault
            if not count:
                raise MissingMemory(address + done, size - done, "the process has ended")
            done += count


def attach_qemu(target: str) -> QemuMemory:
    """Attach to a running QEMU.

    Args:
        target: a process id, or the path of a QMP socket.

    Raises:
        UsageError: what is missing or in the way, and what to give instead.
        DecodeError: a monitor that answers in a form that is not known.
    """
    return attach_process(int(target)) if target.isascii() and target.isdigit() else attach_socket(target)


def attach_socket(path: str) -> QemuMemory:
    """Attach by a QMP socket; the process is the one that listens on it.

    Raises:
        UsageError: no monitor, or the listener is not the process that holds the memory.
        DecodeError: a monitor that answers in a form that is not known.
    """
    monitor = QmpMonitor(path)
    try:
        return QemuMemory(_peer(monitor, path), blocks_from_monitor(monitor), monitor)
    except BaseException:
        monitor.close()
        raise


def _peer(monitor: QmpMonitor, path: str) -> int:
    if not monitor.peer:
        raise UsageError(f"{path}: its QEMU is in another process namespace; run beside it or give its process id")
    return monitor.peer


def attach_process(pid: int) -> QemuMemory:
    """Attach by process id: through a QMP socket of its command line, else by what that line says of memory.

    Raises:
        UsageError: no such process, no permission, or neither way leads to its memory.
    """
    arguments = _proc(pid, "cmdline").split("\0")
    reasons = []
    for path in _qmp_sockets(pid, arguments):
        try:
            monitor = QmpMonitor(path)
        except (UsageError, DecodeError) as fault:
            reasons.append(str(fault))
            continue
        try:
            return QemuMemory(pid, blocks_from_monitor(monitor), monitor)
        except BaseException:
            monitor.close()
            raise
    why = "; ".join(reasons) or "its command line names no QMP socket"
    try:
        blocks = blocks_from_command_line(arguments, _proc(pid, "maps"))
    except UsageError as fault:
        raise UsageError(f"process {pid}: {why}; {fault}") from fault
    gap = Gap("layout of the machine's memory", "taken from the command line: no monitor could be asked")
    return QemuMemory(pid, blocks, None, (gap,))


def _registers(monitor: Monitor | None) -> tuple[tuple[CpuState, ...], tuple[Gap, ...]]:
    if monitor is None:
        return (), ()
    try:
        return decode_info_registers(monitor.ask("info registers -a")), ()
    except DecodeError as fault:
        return (), (Gap("registers", str(fault)),)


def _require_mapped(pid: int, blocks: tuple[Block, ...]) -> None:
    """Compare the layout with the process' own mappings: the monitor may speak of another process."""
    joined: list[list[int]] = []
    for start, end in readable_maps(_proc(pid, "maps")):
        if joined and joined[-1][1] == start:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    for block in blocks:
        host_end = block.host + block.end - block.start
        if not any(start <= block.host and host_end <= end for start, end in joined):
            raise UsageError(
                f"process {pid} does not hold the machine's memory at {block.host:#x}: "
                "it is not the QEMU that the monitor speaks of; give the process id of QEMU"
            )


def _qmp_sockets(pid: int, arguments: "Sequence[str]") -> list[str]:
    """Paths, as this process can open them, of the QMP sockets that a command line names."""
    values = [value for value in each_option(arguments, "qmp", "qmp-pretty") if value.startswith("unix:")]
    paths = [value.removeprefix("unix:").split(",", 1)[0] for value in values]
    control = {
        fields.get("chardev")
        for fields in map(option_fields, each_option(arguments, "mon"))
        if fields.get("mode") == "control"
    }
    for value in each_option(arguments, "chardev"):
        fields = option_fields(value)
        if fields.get("id") in control:
            paths.append(fields.get("path") or _socket_of(pid, fields.get("fd", "")))
    return [_reachable(pid, path) for path in paths if path]


def _reachable(pid: int, path: str) -> str:
    """A path of the process' own view of files, as seen from here."""
    inside = Path(f"/proc/{pid}/cwd").readlink() / path
    through = Path(f"/proc/{pid}/root{inside}")
    same = inside.exists() and through.exists() and inside.samefile(through)
    return str(through if through.exists() and not same else inside)


def _socket_of(pid: int, descriptor: str) -> str:
    """Path of a listening socket that was handed to QEMU as a descriptor; empty if it cannot be told."""
    if not descriptor.isdigit():
        return ""
    try:
        inode = str(Path(f"/proc/{pid}/fd/{descriptor}").readlink()).removeprefix("socket:[").removesuffix("]")
    except OSError:
        return ""
    for line in _proc(pid, "net/unix").splitlines():
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[6] == inode:  # noqa: PLR2004 - proc(5): eight columns, inode and path last
            return fields[7]
    return ""


def _proc(pid: int, name: str) -> str:
    try:
        with Path(f"/proc/{pid}/{name}").open("rb") as file:
            return file.read(_MAX_PROC).decode("utf-8", "surrogateescape")
    except FileNotFoundError as fault:
        raise UsageError(f"there is no process {pid}") from fault
    except OSError as fault:
        raise UsageError(f"process {pid}: {(fault.strerror or '').lower()}; run as root") from fault
