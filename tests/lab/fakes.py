"""A host that does not run: RAM with page tables in a file, a debugger stub that writes to it, an agent by script."""

import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypervigil.core.units import PAGE_SIZE, PhysAddr, VirtAddr
from hypervigil.lab.agent import Agent, Output
from hypervigil.lab.kernels import Kernel
from hypervigil.lab.machine import Machine
from hypervigil.lab.memory import NX, WRITABLE, GuestMemory
from hypervigil.lab.scenarios import Host
from hypervigil.lab.symbols import Symbol, Symbols

KERNEL = VirtAddr(0xFFFF_FFFF_8100_0000)
MODULE = VirtAddr(0xFFFF_FFFF_C004_0000)
HEAP = VirtAddr(0xFFFF_8880_0000_0000)
"""Where the fake kernel, a fake module and the direct map begin."""

_TABLES = 0x1000
_RAM = 1 << 20


class Ram:
    """A file of RAM with four levels of page tables, whose root is at 0x1000; all of it is in the direct map."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = bytearray(_RAM)
        self._next = _TABLES + PAGE_SIZE
        self._frames = _RAM // 2
        for at in range(0, _RAM, PAGE_SIZE):
            self.map(VirtAddr(HEAP + at), PhysAddr(at))

    def page(
        self, address: VirtAddr, content: bytes = b"", *, executable: bool = False, writable: bool = False
    ) -> None:
        """Puts a page of content at a virtual address."""
        frame = PhysAddr(self._frames)
        self._frames += PAGE_SIZE
        self.data[frame : frame + len(content)] = content
        self.map(address, frame, executable=executable, writable=writable)

    def map(self, address: VirtAddr, frame: PhysAddr, *, executable: bool = False, writable: bool = True) -> None:
        table = _TABLES
        for level in (3, 2, 1):
            table = self._below(table + 8 * ((address >> (12 + 9 * level)) & 0x1FF))
        value = frame | 1 | (WRITABLE if writable else 0) | (0 if executable else NX)
        struct.pack_into("<Q", self.data, table + 8 * ((address >> 12) & 0x1FF), value)

    def _below(self, where: int) -> int:
        (value,) = struct.unpack_from("<Q", self.data, where)
        if not value:
            value = self._next | 3
            self._next += PAGE_SIZE
            struct.pack_into("<Q", self.data, where, value)
        table: int = value & ~0xFFF
        return table

    def memory(self) -> GuestMemory:
        self.path.write_bytes(self.data)
        memory = GuestMemory(self.path, self.path.with_name("gdb"))
        memory.root = PhysAddr(_TABLES)
        return memory


@contextmanager
def gdb_server(ram: Path, *, answer: bytes = b"OK") -> Iterator[list[str]]:
    """A debugger stub beside `ram` that carries writes out; yields the requests that it has seen."""
    seen: list[str] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(ram.with_name("gdb")))
    listener.listen(8)
    thread = threading.Thread(target=_serve_gdb, args=(listener, ram, answer, seen), daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def _serve_gdb(listener: socket.socket, ram: Path, answer: bytes, seen: list[str]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            while packet := _packet(connection):
                seen.append(packet)
                if packet.startswith("M") and answer == b"OK":
                    _write(ram, packet)
                connection.sendall(b"+$" + answer + b"#" + f"{sum(answer) & 255:02x}".encode())


def _packet(connection: socket.socket) -> str:
    text = b""
    while b"#" not in text[:-2]:
        got = connection.recv(65536)
        if not got:
            return ""
        text += got
    return text[text.index(b"$") + 1 : text.rindex(b"#")].decode()


def _write(ram: Path, packet: str) -> None:
    where, _, data = packet[1:].partition(":")
    with ram.open("r+b") as file:
        file.seek(int(where.split(",")[0], 16))
        file.write(bytes.fromhex(data))


class FakeAgent(Agent):
    """Answers peeks from the fake RAM and shell lines from a script."""

    def __init__(self, memory: GuestMemory, script: Callable[[str], str]) -> None:
        self._fake = memory
        self._script = script
        self.asked: list[str] = []

    def close(self) -> None:
        pass

    def ping(self, timeout: float = 30.0) -> None:
        pass

    def sh(self, command: str, timeout: float = 60.0) -> Output:  # noqa: ARG002 - the agent's signature
        self.asked.append(command)
        return Output(0, self._script(command).encode())

    def peek(self, address: VirtAddr, length: int, timeout: float = 30.0) -> bytes:  # noqa: ARG002 - the agent's signature
        return self._fake.read(address, length)


class FakeMachine(Machine):
    """A machine with fake RAM; every nested guest makes progress whenever it is asked."""

    def __init__(self, memory: GuestMemory, symbols: Iterable[Symbol], script: Callable[[str], str] = str) -> None:
        self.kernel = Kernel("6.1.0-0-test", {}, Path("vmlinuz"), Path("modules"))
        self.host = Host()
        self.memory = memory
        self.agent = FakeAgent(memory, script)
        self._symbols = Symbols(symbols)
        self._progress = 0

    @property
    def log(self) -> bytes:
        return b""

    def learn_symbols(self) -> Symbols:
        assert self._symbols is not None
        return self._symbols

    def check_sound(self) -> None:
        pass

    def counts(self) -> dict[str, dict[str, int]]:
        self._progress += 1000
        return {"vm1": {"io": self._progress}}

    def close(self) -> None:
        self.memory.close()


@contextmanager
def fake_machine(ram: Ram, symbols: Iterable[Symbol], script: Callable[[str], str] = str) -> Iterator[FakeMachine]:
    """A fake machine whose memory can be written."""
    memory = ram.memory()
    with gdb_server(ram.path):
        machine = FakeMachine(memory, symbols, script)
        try:
            yield machine
        finally:
            machine.close()


def sym(name: str, address: int, kind: str = "t", module: str = "") -> Symbol:
    return Symbol(VirtAddr(address), kind, name, module)


def pointers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)
