"""An emulated KVM host that runs: boot it, act inside it, read and change its memory from outside.

QEMU emulates AMD's virtualization in software (TCG), so the host's kvm_amd really runs a nested guest without any
hardware support. Two measured facts: Linux from 6.12 on needs a processor without cmpxchg16b, which QEMU 7.2
translates wrongly; and code that the kernel patches while it runs trips QEMU's translation now and then when each
processor has a thread of its own (stray int3), so they share one. A boot is tried more than once all the same, and
only a sound one is kept.
"""

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hypervigil.core.errors import UsageError
from hypervigil.core.units import PhysAddr, VirtAddr
from hypervigil.lab import snapshot
from hypervigil.lab.agent import Agent, Output
from hypervigil.lab.btf import Btf
from hypervigil.lab.errors import told
from hypervigil.lab.guest import build_initramfs
from hypervigil.lab.kernels import Kernel, Progress
from hypervigil.lab.memory import GuestMemory
from hypervigil.lab.qemu import Place, running
from hypervigil.lab.qmp import Qmp
from hypervigil.lab.scenarios import Host
from hypervigil.lab.symbols import Symbols, parse_kallsyms

_TRIES = 5
_PEEK = 1024
_ENOUGH = 128
_LONGEST_SILENCE = 45.0
_START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000
_PHYSICAL = (1 << 52) - 1
_FAILED = re.compile(rb"Kernel panic|Oops:|BUG: |general protection|Internal error|WARNING: CPU|WARNING: \S+:\d+ at ")


class Machine:
    """A running host; `boot` makes one, `attach` takes over one that another process booted."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.kernel = place.kernel
        self.host = place.host
        self.memory = GuestMemory(place.ram, place.directory / "gdb")
        self.qmp = Qmp(place.directory / "qmp")
        self.agent = Agent(place.directory / "agent", self.memory)
        self._symbols: Symbols | None = None

    @property
    def log(self) -> bytes:
        """What the host wrote on its console."""
        return (self.place.directory / "console").read_bytes()

    def close(self) -> None:
        """Lets go of the machine's sockets; it runs on."""
        self.agent.close()
        self.qmp.close()
        self.memory.close()

    def wait_ready(self, timeout: float) -> None:
        """Returns when the agent inside answers.

        Raises:
            UsageError: the host panicked, was not ready in time, or has been silent for long before that.
        """
        deadline = time.monotonic() + timeout
        written, silent_since = 0, time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - silent_since < _LONGEST_SILENCE:
            if self._says_ready():
                return
            self.check_sound()
            if len(self.log) > written:
                written, silent_since = len(self.log), time.monotonic()
        raise UsageError(f"the emulated host did not come up; its console ends with: {self._last_line()}")

    def _says_ready(self) -> bool:
        try:
            return self.agent.line(1.0) == "agent ready"
        except TimeoutError:
            return False
        except UsageError:
            self.check_sound()  # its console tells more than the end of the line does
            raise

    def _last_line(self) -> str:
        lines = self.log.strip().splitlines()[-1:] or [b"nothing"]
        return lines[0].decode("utf-8", "backslashreplace")

    def check_sound(self) -> None:
        """Raises UsageError when the host has panicked, complained or ended."""
        found = _FAILED.search(self.log)
        if found:
            line = self.log[found.start() : found.start() + 120].splitlines()[0]
            raise UsageError(f"the emulated host failed: {line.decode('utf-8', 'backslashreplace')}")
        if not self.place.runs():
            raise UsageError("QEMU has ended")

    def sh(self, command: str, timeout: float = 60.0) -> Output:
        """Runs a line of shell inside the host."""
        return self.agent.sh(command, timeout)

    def text(self, command: str) -> str:
        """What a line of shell inside the host prints.

        Raises:
            UsageError: it fails.
        """
        result = self.sh(command)
        if result.status:
            raise UsageError(f"inside the host: {command}: {result.text.strip()[-300:] or f'status {result.status}'}")
        return result.text

    def peek(self, address: VirtAddr, length: int) -> bytes:
        """Kernel memory as the host itself sees it, through its /proc/kcore."""
        steps = range(address, address + length, _PEEK)
        return b"".join(self.agent.peek(VirtAddr(at), min(_PEEK, address + length - at)) for at in steps)

    @property
    def symbols(self) -> Symbols:
        """The host's own /proc/kallsyms, read once; `learn_symbols` reads it anew."""
        return self._symbols or self.learn_symbols()

    def learn_symbols(self) -> Symbols:
        """Reads the host's symbols, and from them where its page tables are, so that addresses can be translated."""
        self._symbols = parse_kallsyms(self.sh("cat /proc/kallsyms", 120).text)
        self._find_page_tables(self._symbols)
        return self._symbols

    def btf(self, module: str = "") -> Btf:
        """The BTF of the kernel, or of a module, as the host offers it.

        Raises:
            UsageError: it offers none.
        """
        base = Btf(self.sh("cat /sys/kernel/btf/vmlinux", 120).data)
        return Btf(self.sh(f"cat /sys/kernel/btf/{module}").data, base) if module else base

    def _find_page_tables(self, symbols: Symbols) -> None:
        phys_base = self.agent.peek_pointer(symbols.find("phys_base").address)
        top = symbols.find("init_top_pgt", "swapper_pg_dir").address
        self.memory.root = PhysAddr((top - _START_KERNEL_MAP + phys_base) & _PHYSICAL)
        self.memory.levels = 5 if "la57" in self.sh("grep -m1 -ow la57 /proc/cpuinfo").text else 4

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The machine stands still inside the `with`; memory must not be written there."""
        self.qmp.execute("stop")
        try:
            yield
        finally:
            self.qmp.execute("cont")

    def counts(self) -> dict[str, dict[str, int]]:
        """What the nested machines have done so far, by their name."""
        text = self.sh("cd /run/nest && for f in vm*; do echo $f $(cat $f 2>/dev/null); done").text
        table: dict[str, dict[str, int]] = {}
        for line in text.splitlines():
            name, *words = line.split()
            pairs = zip(words[::2], words[1::2], strict=False)
            table[name] = {key: int(value) for key, value in pairs if value.isdecimal()}
        return table

    def check_alive(self, timeout: float = 30.0) -> None:
        """Returns when every nested machine has made progress and the host has not complained.

        Raises:
            UsageError: one stands still for `timeout` seconds, or the host failed.
        """
        names = [f"vm{number + 1}" for number in range(self.host.vms)]
        before = now = self.counts()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self.check_sound()
            now = self.counts()
            if all(_done(now, name) >= _done(before, name) + _ENOUGH for name in names):
                return
            time.sleep(0.2)
        raise UsageError(f"a nested machine stands still: {before} then {now}")


def _done(counts: dict[str, dict[str, int]], name: str) -> int:
    return counts.get(name, {}).get("io", 0)


@contextlib.contextmanager
def attach(place: Place) -> Iterator[Machine]:
    """A machine that already runs; it goes on when the `with` ends."""
    machine = Machine(place)
    try:
        machine.agent.ping()
        yield machine
    finally:
        machine.close()


@contextlib.contextmanager
def boot(
    kernel: Kernel,
    host: Host,
    cache: Path,
    progress: Progress,
    *,
    tries: int = _TRIES,
    timeout: float = 120.0,
    snapshots: bool = False,
) -> Iterator[Machine]:
    """A host whose nested guests run; it is ended when the `with` ends.

    Args:
        kernel: what to boot.
        host: its shape, guests and modules.
        cache: where small programs, initial file systems and snapshots are kept.
        progress: is told of boots that failed.
        tries: how many boots to try.
        timeout: seconds for one boot.
        snapshots: go on from a snapshot of such a host if there is one, else keep one; hosts from the same snapshot
            have the same addresses.

    Raises:
        UsageError: it did not come up, or a package is missing on this machine.
    """
    with told(cache):
        start = _Start(kernel, build_initramfs(kernel, host, cache), host, cache, timeout)
    kept = snapshot.snapshot_path(kernel, host, start.initrd, cache) if snapshots else None
    with contextlib.ExitStack() as stack:
        if kept is None or not snapshot.exists(kept):
            yield _booted(stack, start, progress, tries, kept)
        else:
            yield _resumed(stack, start, progress, tries, kept)


class _Start(msgspec.Struct, frozen=True):
    """All that one boot needs."""

    kernel: Kernel
    initrd: Path
    host: Host
    cache: Path
    timeout: float


def _booted(stack: contextlib.ExitStack, start: _Start, progress: Progress, tries: int, kept: Path | None) -> Machine:
    for attempt in range(1, tries):
        try:
            return _up(stack, start, kept)
        except UsageError as error:
            stack.close()
            progress(f"boot {attempt} of {tries} of {start.kernel.release} failed: {error}")
    return _up(stack, start, kept)


def _resumed(stack: contextlib.ExitStack, start: _Start, progress: Progress, tries: int, kept: Path) -> Machine:
    try:
        return _go_on(stack, start, kept)
    except UsageError as error:
        stack.close()
        progress(f"the snapshot of {start.kernel.release} cannot be used: {error}")
    shutil.rmtree(kept, ignore_errors=True)
    return _booted(stack, start, progress, tries, kept)


def _up(stack: contextlib.ExitStack, start: _Start, kept: Path | None) -> Machine:
    place = stack.enter_context(running(start.kernel, start.initrd, start.host, start.cache))
    machine = Machine(place)
    stack.callback(machine.close)
    machine.wait_ready(start.timeout)
    machine.check_alive(start.timeout)
    if kept is not None:
        snapshot.take(machine.qmp, place.ram, kept)
    return machine


def _go_on(stack: contextlib.ExitStack, start: _Start, kept: Path) -> Machine:
    place = stack.enter_context(running(start.kernel, start.initrd, start.host, start.cache, kept))
    machine = Machine(place)
    stack.callback(machine.close)
    snapshot.resume(machine.qmp, kept)
    machine.agent.ping()
    machine.check_alive(start.timeout)
    return machine
