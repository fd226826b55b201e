"""Talks to the agent inside an emulated host (`data/guest/agent.c` tells the protocol)."""

import socket
import struct
import time
from pathlib import Path

import msgspec

from hypervigil.core.errors import UsageError
from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.lab.memory import GuestMemory

_LONGEST_LINE = 1 << 16
_LARGEST_ANSWER = 64 << 20


class Output(msgspec.Struct, frozen=True):
    """What a shell command inside the host left: its exit status, and standard output and error in one."""

    status: int
    data: bytes

    @property
    def text(self) -> str:
        """The output as text; bytes that are not UTF-8 are escaped."""
        return self.data.decode("utf-8", "backslashreplace")


class Agent:
    """A line to the agent; `memory` is where its larger answers are read from."""

    def __init__(self, path: Path, memory: GuestMemory) -> None:
        self._memory = memory
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise UsageError(f"{path}: cannot reach the emulated host: {error.strerror}") from error
        self._buffer = b""

    def close(self) -> None:
        """Ends the connection; the agent goes on listening."""
        self._socket.close()

    def line(self, timeout: float) -> str:
        """The next line from the agent.

        Raises:
            TimeoutError: none came in `timeout` seconds.
            UsageError: the machine has ended or sends nonsense.
        """
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            got = self._socket.recv(65536)
            if not got or len(self._buffer) > _LONGEST_LINE:
                raise UsageError("the emulated host has ended")
            self._buffer += got
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode("latin-1").strip()

    def _request(self, text: str, timeout: float) -> Output:
        if "\n" in text:
            raise UsageError("a command for the emulated host must be one line")
        try:
            self._socket.sendall(text.encode() + b"\n")
            return self._answer(timeout)
        except TimeoutError as error:
            raise UsageError(f"the emulated host does not answer within {timeout:g} s: {text[:60]}") from error
        except OSError as error:
            raise UsageError(f"the emulated host has ended: {error}") from error

    def _answer(self, timeout: float) -> Output:
        line = self.line(timeout)
        while line == "agent ready":
            line = self.line(timeout)
        verb, _, rest = line.partition(" ")
        if verb != "ok":
            raise UsageError(f"the emulated host refuses: {rest or line}")
        status, length = (int(word) for word in rest.split())
        if length > _LARGEST_ANSWER:
            raise UsageError(f"the emulated host answers with {length} bytes, more than {_LARGEST_ANSWER}")
        data = bytearray()
        while len(data) < length:
            data += self._chunk(timeout)
        return Output(status, bytes(data))

    def _chunk(self, timeout: float) -> bytes:
        verb, _, rest = self.line(timeout).partition(" ")
        if verb == "hex":
            return bytes.fromhex(rest)
        if verb != "pages":
            raise UsageError(f"the emulated host answers {verb!r} where data was due")
        length, _, frames = rest.partition(" ")
        pages = [PhysAddr(int(frame, 16) * PAGE_SIZE) for frame in frames.split(",") if frame]
        data = b"".join(self._memory.physical(page, PAGE_SIZE) for page in pages)[: int(length)]
        self._socket.sendall(b"next\n")
        return data

    def ping(self, timeout: float = 30.0) -> None:
        """Returns when the agent answers, else raises UsageError."""
        self._request("ping", timeout)

    def sh(self, command: str, timeout: float = 60.0) -> Output:
        """Runs a line of shell inside the host and waits for its end."""
        return self._request(f"sh {command}", timeout)

    def peek(self, address: VirtAddr, length: int, timeout: float = 30.0) -> bytes:
        """Kernel memory [address, address + length) as /proc/kcore inside the host shows it; length to 1024 bytes."""
        data = self._request(f"peek {address:x} {length}", timeout).data
        if len(data) != length:
            raise UsageError(f"/proc/kcore gave {len(data)} of {length} bytes at {address:#x}")
        return data

    def peek_pointer(self, address: VirtAddr) -> VirtAddr:
        """The 64-bit value at a kernel address, as /proc/kcore inside the host shows it."""
        (value,) = struct.unpack("<Q", self.peek(address, 8))
        return VirtAddr(value)
