"""Starts QEMU for one host and makes sure that it ends."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hypervigil.core.errors import UsageError
from hypervigil.lab.kernels import Kernel
from hypervigil.lab.scenarios import Host
from hypervigil.lab.snapshot import restore_ram

_MIB = 1 << 20
_SHARED = Path("/dev/shm")  # noqa: S108 - directories in it are made by mkdtemp
_RECORD = "machine.json"
_START_TRIES = 400
_LONGEST_MEMORY = 2048


class Place(msgspec.Struct, frozen=True):
    """A machine that runs, as another process can find it.

    Attributes:
        pid: QEMU's process.
        directory: holds the sockets qmp (for the range), qmp2 (free for others), agent and gdb, and the console's log.
        ram: the file that is the machine's memory, shared with QEMU.
        kernel: what it runs.
        host: what it was booted as.
    """

    pid: int
    directory: Path
    ram: Path
    kernel: Kernel
    host: Host

    @property
    def qmp(self) -> Path:
        """A QMP socket that the range does not use itself."""
        return self.directory / "qmp2"

    def runs(self) -> bool:
        """Whether this very QEMU still runs; another process may have got its number since."""
        try:
            return str(self.ram).encode() in Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return False


@contextlib.contextmanager
def running(kernel: Kernel, initrd: Path, host: Host, cache: Path, snapshot: Path | None = None) -> Iterator[Place]:
    """QEMU with a host that begins to boot; it is ended, and its files are removed, when the `with` ends.

    With a snapshot it has the memory of that and waits for its state.

    Raises:
        UsageError: QEMU does not start, or there is no room for the machine's memory.
    """
    if not 0 < host.memory <= _LONGEST_MEMORY:
        raise UsageError(f"a host has between 1 and {_LONGEST_MEMORY} MiB of memory, not {host.memory}")
    clear_remains(cache)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hypervigil-lab-")))
        ram = Path(tempfile.mkdtemp(prefix="hypervigil-lab-", dir=_roomy(cache, host.memory * _MIB))) / "ram"
        stack.callback(shutil.rmtree, ram.parent, ignore_errors=True)
        line = command(directory, ram, kernel, initrd, host)
        if snapshot is not None:
            restore_ram(snapshot, ram)
            line += ["-incoming", "defer"]
        log = stack.enter_context((directory / "qemu.log").open("wb"))
        process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            line, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        stack.callback(_end, process)
        place = Place(process.pid, directory, ram, kernel, host)
        (directory / _RECORD).write_bytes(msgspec.json.encode(place, enc_hook=str))
        _wait_for_sockets(process, place)
        link = cache / "running" / str(process.pid)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(directory)
        stack.callback(link.unlink, missing_ok=True)
        yield place


def each_running(cache: Path) -> Iterator[Place]:
    """The machines that this user runs."""
    for link in sorted((cache / "running").glob("*")):
        place = _recorded(link)
        if place is not None and place.runs():
            yield place


def _recorded(directory: Path) -> Place | None:
    try:
        text = (directory / _RECORD).read_bytes()
        return msgspec.json.decode(text, type=Place, dec_hook=lambda kind, value: kind(value))
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None


def clear_remains(cache: Path) -> None:
    """Removes what machines left whose program was killed."""
    alive = {str(place.pid) for place in each_running(cache)}
    for link in (cache / "running").glob("*"):
        if link.name in alive:
            continue
        place = _recorded(link)
        if place is not None:
            shutil.rmtree(place.ram.parent, ignore_errors=True)
            shutil.rmtree(place.directory, ignore_errors=True)
        link.unlink(missing_ok=True)


def _roomy(cache: Path, size: int) -> Path:
    """Where a file of `size` bytes fits: in memory if there is plenty, else on disk."""
    if _SHARED.is_dir() and os.access(_SHARED, os.W_OK) and shutil.disk_usage(_SHARED).free > 2 * size:
        return _SHARED
    free = shutil.disk_usage(cache).free
    if free < size:
        raise UsageError(f"{cache}: {free // _MIB} MiB are free, the host's memory needs {size // _MIB}")
    return cache


def command(directory: Path, ram: Path, kernel: Kernel, initrd: Path, host: Host) -> list[str]:
    """The command line of QEMU; setpriv ends it when this program dies in any way.

    All processors take turns in one thread. With a thread each (measured, QEMU 7.2, 4 processors, Linux 7.3) every
    third boot tripped over code that another processor was just patching (stray int3); with one none of six did, and
    on two real processors it is not slower.
    """
    return [
        *(
            "setpriv",
            "--pdeathsig",
            "KILL",
            "qemu-system-x86_64",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ),
        *("-machine", "q35,memory-backend=ram", "-accel", "tcg,thread=single", "-smp", str(host.cpus)),
        *("-m", f"{host.memory}M", "-cpu", cpu(kernel, host)),
        *("-object", f"memory-backend-file,id=ram,size={host.memory}M,mem-path={ram},share=on"),
        *("-kernel", str(kernel.vmlinuz), "-initrd", str(initrd), "-append", words(host)),
        *("-serial", f"file:{directory}/console", "-serial", f"unix:{directory}/agent,server=on,wait=off"),
        *(
            "-qmp",
            f"unix:{directory}/qmp,server=on,wait=off",
            "-qmp",
            f"unix:{directory}/qmp2,server=on,wait=off",
        ),
        *("-chardev", f"socket,id=gdb,path={directory}/gdb,server=on,wait=off", "-gdb", "chardev:gdb"),
    ]


def cpu(kernel: Kernel, host: Host) -> str:
    """QEMU's processor: AMD with virtualization; without cmpxchg16b for kernels that use it where QEMU 7.2 fails."""
    words = ["EPYC", "+svm"]
    if kernel.version >= (6, 12):
        words.append("-cx16")
    return ",".join([*words, *filter(None, [host.cpu_flags])])


def words(host: Host) -> str:
    """The kernel's command line: it reboots, and so ends QEMU, when it panics."""
    return f"console=ttyS0 panic=-1 lab.vms={host.vms} lab.vcpus={host.vcpus} {host.cmdline}".strip()


def _wait_for_sockets(process: subprocess.Popen[bytes], place: Place) -> None:
    for _ in range(_START_TRIES):
        if place.ram.exists() and all((place.directory / name).exists() for name in ("agent", "qmp", "gdb")):
            return
        if process.poll() is not None:
            reason = (place.directory / "qemu.log").read_text(errors="backslashreplace").strip()
            raise UsageError(f"QEMU did not start: {reason[-400:]}")
        time.sleep(0.05)
    raise UsageError("QEMU did not open its sockets within 20 s")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
