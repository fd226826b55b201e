"""A QMP monitor that can only ask: every command that would change or stop the machine is refused here.

Source: QEMU docs/interop/qmp-spec.rst (greeting, capabilities, one JSON object a line, events in between) and
monitor/hmp-cmds (info mtree, info registers, gpa2hva).
"""

import json
import os
import re
import socket
import struct
from typing import Any, Protocol

from hypervigil.core.errors import DecodeError, ProgramError, UsageError

MAX_LINE = 1 << 24
"""Bytes of one answer: the memory tree of a large machine has some 100 KiB."""

TIMEOUT = 5.0
"""Seconds to wait for an answer. A monitor that another client holds never greets."""

_MAX_EVENTS = 1 << 16
_COMMANDS = frozenset({"qmp_capabilities", "query-status", "human-monitor-command"})
_LINES = re.compile(r"info mtree -f|info registers -a|gpa2hva 0x[0-9a-f]{1,16}")
_PEER = struct.Struct("3i")


class Monitor(Protocol):
    """What is needed of a monitor; libvirt's passes the same questions through."""

    def status(self) -> str:
        """The run state: `running`, `paused`, ..."""

    def ask(self, line: str) -> str:
        """The human monitor's answer to one of the questions that change nothing."""

    def close(self) -> None:
        """Let others use the monitor."""


class QmpMonitor:
    """A connection to a QMP socket.

    Args:
        path: of the socket.

    Attributes:
        peer: process id of who listens; 0 when it is in another process namespace. For machines of libvirt this
            may be libvirt, which opens the socket and hands it over.

    Raises:
        UsageError: no such socket, no permission, or another client holds the monitor.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pending = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(TIMEOUT)
        try:
            self._connect()
        except BaseException:
            self._socket.close()
            raise

    def status(self) -> str:
        """See `Monitor.status`."""
        answer = self._execute("query-status")
        status = answer.get("status") if isinstance(answer, dict) else None
        if not isinstance(status, str):
            raise DecodeError("qmp answer", f"query-status gave {answer!r:.80}")
        return status

    def ask(self, line: str) -> str:
        """See `Monitor.ask`.

        Raises:
            ProgramError: not one of the questions that change nothing.
            DecodeError: an answer that is no text.
            UsageError: the monitor is gone.
        """
        if not _LINES.fullmatch(line):
            raise ProgramError(f"{line!r} is not a question that changes nothing")
        answer = self._execute("human-monitor-command", {"command-line": line})
        if not isinstance(answer, str):
            raise DecodeError("qmp answer", f"{line} gave {answer!r:.80}")
        return answer

    def close(self) -> None:
        """See `Monitor.close`."""
        self._socket.close()

    def _connect(self) -> None:
        try:
            self._socket.connect(self._path)
        except OSError as fault:
            reason = (fault.strerror or str(fault)).lower()
            raise UsageError(f"{self._path}: {reason}; is it the QMP socket of a running QEMU?") from fault
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        self.peer: int = _PEER.unpack(raw)[0]
        if "QMP" not in self._message():
            raise UsageError(f"{self._path}: what answers is no QMP monitor")
        self._execute("qmp_capabilities")

    def _execute(self, command: str, arguments: dict[str, str] | None = None) -> Any:  # noqa: ANN401 - JSON
        if command not in _COMMANDS:
            raise ProgramError(f"{command} is not a command that changes nothing")
        request = {"execute": command} | ({"arguments": arguments} if arguments else {})
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as fault:
            raise UsageError(f"{self._path}: the monitor is gone ({fault})") from fault
        for _ in range(_MAX_EVENTS):
            message = self._message()
            if "error" in message:
                raise UsageError(f"{self._path}: {command}: {message['error']!r:.200}")
            if "return" in message:
                return message["return"]
        raise DecodeError("qmp answer", f"{command}: nothing but events")

    def _message(self) -> dict[str, Any]:
        line = self._line()
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as fault:
            raise DecodeError("qmp answer", f"{bytes(line[:40])!r} is no JSON") from fault
        if not isinstance(message, dict):
            raise DecodeError("qmp answer", "not an object")
        return message

    def _line(self) -> bytes:
        while b"\n" not in self._pending:
            if len(self._pending) > MAX_LINE:
                raise DecodeError("qmp answer", f"a line of more than {MAX_LINE} bytes")
            try:
                piece = self._socket.recv(1 << 16)
            except TimeoutError as fault:
                raise UsageError(
                    f"{self._path}: no answer in {TIMEOUT:g} s; another client such as libvirt may hold the monitor: "
                    "give a second QMP socket, or the process id of QEMU"
                ) from fault
            except OSError as fault:
                raise UsageError(f"{self._path}: {os.strerror(fault.errno or 0).lower()}") from fault
            if not piece:
                raise UsageError(f"{self._path}: the monitor closed the connection")
            self._pending += piece
        line, _, rest = self._pending.partition(b"\n")
        self._pending = rest
        return bytes(line)
