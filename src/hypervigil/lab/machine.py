"""An emulated KVM host that runs: boot it, act inside it, read and change its memory from outside, save it.

QEMU emulates AMD's virtualization in software (TCG), so the host's kvm_amd really runs a nested guest without any
hardware support. Two measured facts: Linux from 6.12 on needs a processor without cmpxchg16b, which QEMU 7.2
translates wrongly; Linux 7.2 now and then panics while it boots, so a boot is tried more than once.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hypervigil.core.errors import UsageError
from hypervigil.core.units import PhysAddr, VirtAddr
from hypervigil.lab.agent import Agent, Output
from hypervigil.lab.btf import Btf
from hypervigil.lab.kernels import Kernel
from hypervigil.lab.memory import GuestMemory
from hypervigil.lab.qmp import Qmp
from hypervigil.lab.symbols import Symbols, parse_kallsyms

_MIB = 1 << 20
_START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000
_PANIC = re.compile(rb"Kernel panic|Oops:|BUG: |general protection|Internal error")


class Shape(msgspec.Struct, frozen=True):
    """What a host is made of.

    Attributes:
        memory: MiB of RAM, at most 2048 so that it is one range from physical address 0.
        cpus: processors.
        cmdline: words added to the kernel's command line.
        cpu_flags: QEMU's words after `-cpu EPYC,+svm`.
    """

    memory: int = 256
    cpus: int = 2
    cmdline: str = ""
    cpu_flags: str = "-cx16"


class Machine:
    """A running host. Made by `boot`."""

    def __init__(self, kernel: Kernel, directory: Path, process: subprocess.Popen[bytes], shape: Shape) -> None:
        self.kernel = kernel
        self.directory = directory
        self.process = process
        self.shape = shape
        self.memory = GuestMemory(directory / "ram", directory / "gdb")
        self.qmp = Qmp(directory / "qmp")
        self.agent = Agent(directory / "agent", self.memory)
        self._symbols: Symbols | None = None

    @property
    def log(self) -> bytes:
        """What the host wrote on its console."""
        return (self.directory / "console").read_bytes()

    def close(self) -> None:
        """Ends the machine and lets go of its sockets."""
        self.agent.close()
        self.qmp.close()
        self.memory.close()
        _end(self.process)

    def wait_ready(self, timeout: float) -> None:
        """Returns when the agent inside answers.

        Raises:
            UsageError: the host panicked or was not ready in time.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                if self.agent.line(1.0) == "agent ready":
                    return
            self.check_sound()
        raise UsageError(f"the emulated host was not ready after {timeout:g} s")

    def check_sound(self) -> None:
        """Raises UsageError when the host has panicked, complained or ended."""
        found = _PANIC.search(self.log)
        if found:
            line = self.log[found.start() : found.start() + 120].splitlines()[0]
            raise UsageError(f"the emulated host failed: {line.decode('utf-8', 'backslashreplace')}")
        if self.process.poll() is not None:
            raise UsageError(f"QEMU ended with status {self.process.returncode}")

    def sh(self, command: str, timeout: float = 60.0) -> Output:
        """Runs a line of shell inside the host."""
        return self.agent.sh(command, timeout)

    def peek(self, address: VirtAddr, length: int) -> bytes:
        """Kernel memory as the host itself sees it, through its /proc/kcore."""
        return b"".join(
            self.agent.peek(VirtAddr(at), min(1024, address + length - at)) for at in range(address, address + length, 1024)
        )

    @property
    def symbols(self) -> Symbols:
        """The host's own /proc/kallsyms, read once; `forget_symbols` reads it anew."""
        if self._symbols is None:
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

    def forget_symbols(self) -> None:
        """Makes the next use of `symbols` read them again."""
        self._symbols = None

    def _find_page_tables(self, symbols: Symbols) -> None:
        phys_base = self.agent.peek_pointer(symbols.find("phys_base").address)
        top = symbols.find("init_top_pgt", "swapper_pg_dir").address
        self.memory.root = PhysAddr((top - _START_KERNEL_MAP + phys_base) & ((1 << 52) - 1))
        self.memory.levels = 5 if "la57" in self.sh("grep -m1 -ow la57 /proc/cpuinfo").text else 4

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The machine stands still inside the `with`."""
        self.qmp.execute("stop")
        try:
            yield
        finally:
            self.qmp.execute("cont")

    def counts(self) -> dict[str, dict[str, int]]:
        """What the nested machines have done so far, by their name."""
        text = self.sh("cd /run/nest && for f in *; do echo $f $(cat $f); done").text
        table: dict[str, dict[str, int]] = {}
        for line in text.splitlines():
            name, *pairs = line.split()
            table[name] = {pairs[i]: int(pairs[i + 1]) for i in range(0, len(pairs) - 1, 2)}
        return table

    def check_alive(self, timeout: float = 30.0) -> None:
        """Returns when every nested machine has made progress and the host has not complained.

        Raises:
            UsageError: one stands still for `timeout` seconds, or the host failed.
        """
        before = self.counts()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            time.sleep(0.3)
            self.check_sound()
            now = self.counts()
            if all(now.get(name, {}).get("io", 0) >= was.get("io", 0) + 128 for name, was in before.items()):  # noqa: PLR2004 - two rests of the nested guest
                return
        raise UsageError(f"a nested machine stands still: {before} then {self.counts()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _run_directory(cache: Path, size: int) -> Path:
    shm = Path("/dev/shm")  # noqa: S108 - the directory in it is made by mkdtemp
    roomy = shm.is_dir() and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 3 * size
    return Path(tempfile.mkdtemp(prefix="hypervigil-lab-", dir=shm if roomy else cache))


def _command(directory: Path, vmlinuz: Path, initrd: Path, shape: Shape) -> list[str]:
    return [
        *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot"),
        *("-machine", "q35,memory-backend=ram", "-accel", "tcg,thread=multi", "-smp", str(shape.cpus)),
        *("-m", f"{shape.memory}M", "-cpu", f"EPYC,+svm,{shape.cpu_flags}".rstrip(",")),
        *("-object", f"memory-backend-file,id=ram,size={shape.memory}M,mem-path={directory}/ram,share=on"),
        *("-kernel", str(vmlinuz), "-initrd", str(initrd)),
        *("-append", f"console=ttyS0 panic=-1 {shape.cmdline}".strip()),
        *("-serial", f"file:{directory}/console", "-serial", f"unix:{directory}/agent,server=on,wait=off"),
        *("-qmp", f"unix:{directory}/qmp,server=on,wait=off", "-qmp", f"unix:{directory}/qmp2,server=on,wait=off"),
        *("-chardev", f"socket,id=gdb,path={directory}/gdb,server=on,wait=off", "-gdb", "chardev:gdb"),
    ]


def _wait_for_sockets(process: subprocess.Popen[bytes], directory: Path) -> None:
    for _ in range(400):
        if all((directory / name).exists() for name in ("ram", "agent", "qmp", "gdb")):
            return
        if process.poll() is not None:
            reason = (directory / "qemu.log").read_text(errors="backslashreplace").strip()
            raise UsageError(f"QEMU did not start: {reason[-400:]}")
        time.sleep(0.05)
    raise UsageError("QEMU did not open its sockets within 20 s")


@contextlib.contextmanager
def start(kernel: Kernel, initrd: Path, shape: Shape, cache: Path, *, timeout: float = 120.0) -> Iterator[Machine]:
    """Boots a host once and yields it when it is ready; ends it afterwards."""
    directory = _run_directory(cache, shape.memory * _MIB)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        log = stack.enter_context((directory / "qemu.log").open("wb"))
        process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            _command(directory, kernel.vmlinuz, initrd, shape), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        stack.callback(_end, process)
        _wait_for_sockets(process, directory)
        machine = Machine(kernel, directory, process, shape)
        stack.callback(machine.close)
        machine.wait_ready(timeout)
        yield machine
