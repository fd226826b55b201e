"""Writes to the memory of a machine under emulation, so that already translated code is thrown away.

A write through a shared memory backend alone would leave QEMU running its old translation of changed code; its
debugger stub invalidates it. Connecting stops the machine, detaching lets it run.

Source: GDB manual, "Remote Serial Protocol"; QEMU docs/system/gdb.rst (7.2), `Qqemu.PhyMemMode`.
"""

import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from hypervigil.core.errors import UsageError
from hypervigil.core.units import PhysAddr

_CHUNK = 1024
_LONGEST_ANSWER = 1 << 16


class GdbStub:
    """A connection to QEMU's debugger stub, in physical addressing; the machine stands still while it is open."""

    def __init__(self, path: Path, *, timeout: float = 60.0) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._buffer = b""
        try:
            self._socket.connect(str(path))
            self._ask("Qqemu.PhyMemMode:1")
        except UsageError:
            self._socket.close()
            raise
        except OSError as error:
            self._socket.close()
            raise UsageError(f"{path}: cannot reach QEMU's debugger stub: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._ask("D")
        finally:
            self._socket.close()

    def _byte(self) -> bytes:
        while not self._buffer:
            self._buffer = self._socket.recv(_LONGEST_ANSWER)
            if not self._buffer:
                raise UsageError(f"{self._path}: QEMU has ended")
        first, self._buffer = self._buffer[:1], self._buffer[1:]
        return first

    def _answer(self) -> str:
        while self._byte() != b"$":
            pass
        text = b""
        while (byte := self._byte()) != b"#":
            text += byte
            if len(text) > _LONGEST_ANSWER:
                raise UsageError(f"{self._path}: the debugger stub answers without end")
        self._byte()
        self._byte()
        self._socket.sendall(b"+")
        return text.decode("latin-1")

    def _ask(self, request: str) -> None:
        body = request.encode()
        self._socket.sendall(b"$" + body + b"#" + f"{sum(body) & 0xFF:02x}".encode())
        answer = self._answer()
        while answer[:1] in {"T", "S"}:  # the stop that connecting caused
            answer = self._answer()
        if answer != "OK":
            raise UsageError(f"{self._path}: the debugger stub refuses {request[:24]!r}: {answer!r}")

    def write(self, address: PhysAddr, data: bytes) -> None:
        """Puts `data` at guest-physical [address, address + len(data)).

        Raises:
            UsageError: QEMU has ended or refuses the write.
        """
        for at in range(0, len(data), _CHUNK):
            part = data[at : at + _CHUNK]
            self._ask(f"M{address + at:x},{len(part):x}:{part.hex()}")
