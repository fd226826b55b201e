"""QEMU's machine protocol, as far as the range needs it.

Source: QEMU, docs/interop/qmp-spec.txt (7.2) and qapi/*.json.
"""

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hypervigil.core.errors import UsageError

_LONGEST_LINE = 1 << 20


class Qmp:
    """One connection to a QMP socket; a context manager that closes it."""

    def __init__(self, path: Path, *, timeout: float = 120.0) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise UsageError(f"{path}: cannot reach QEMU: {error.strerror}") from error
        self._lines = self._socket.makefile("rb")
        self._receive()
        self.execute("qmp_capabilities")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; the machine goes on."""
        self._lines.close()
        self._socket.close()

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._lines.readline(_LONGEST_LINE)
        except OSError as error:
            raise UsageError(f"{self._path}: QEMU does not answer: {error}") from error
        if not line:
            raise UsageError(f"{self._path}: QEMU has ended")
        message: dict[str, Any] = json.loads(line)
        return message

    def execute(self, command: str, **arguments: object) -> Any:  # noqa: ANN401 - each command answers in its own shape
        """What QEMU returns for `command`; events that come in between are dropped.

        Raises:
            UsageError: QEMU has ended, does not answer, or refuses the command.
        """
        request = {"execute": command, "arguments": arguments}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise UsageError(f"{self._path}: QEMU has ended: {error}") from error
        while True:
            message = self._receive()
            if "error" in message:
                raise UsageError(f"QEMU refuses {command}: {message['error'].get('desc', message['error'])}")
            if "return" in message:
                return message["return"]
