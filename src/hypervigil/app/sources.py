"""Targets as sources of physical memory, opened before parsing is confined.

One grammar for every use-case: a path to a memory image, ``qemu:PID``, or ``qemu:/path/to/qmp.sock``.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hypervigil.core.digest import CHUNK, combine, digest_of
from hypervigil.core.errors import UsageError
from hypervigil.core.evidence import Evidence
from hypervigil.memory.open import open_image
from hypervigil.memory.qemu import attach_qemu
from hypervigil.memory.reader import Reader
from hypervigil.memory.recording import RecordingReader, ReplayReader

LIVE = "qemu:"
_NOT_YET = ("local", "libvirt:", "ssh://", "vsphere://", "proxmox://")
_RIGHT = "give a memory image, qemu:PID or qemu:SOCKET"
_RECORDING_NAME = "recording of a live QEMU machine"
_THREADS = 2


class Source(NamedTuple):
    """Opened memory.

    Attributes:
        memory: its reader.
        name: the target as named, without its folder.
        describe: gives its evidence, with the digests of the chunks that are asked for; may wait for hashing.
        begin: starts what may run beside the judging; called once, in the process that judges.
        recording: gives the recording of what was read, for live sources; None for images.
        again: begins another look at memory that changes; None for images.
    """

    memory: Reader
    name: str
    describe: Callable[[tuple[int, ...]], Evidence]
    begin: Callable[[], None] = lambda: None
    recording: Callable[[], bytes] | None = None
    again: Callable[[], None] | None = None


@contextmanager
def open_source(target: str) -> Iterator[Source]:
    """Open a target.

    Raises:
        UsageError: no such file or process, no permission, or a kind of target that is not read; it names the target
            and what to give instead.
        UnsupportedEvidence: an image of a format or machine that is not read.
    """
    if not target.strip():
        raise UsageError(f"the target is empty; {_RIGHT}")
    if target.startswith(LIVE):
        with _live(target) as source:
            yield source
    elif target.startswith(_NOT_YET):
        raise UsageError(f"{target}: this kind of target is not read; {_RIGHT}")
    else:
        with _image(target) as source:
            yield source


@contextmanager
def _named(target: str) -> Iterator[None]:
    """Let no error out that does not name the target.

    Raises:
        UsageError: what was raised inside.
    """
    try:
        yield
    except UsageError as fault:
        text = str(fault)
        if target.removeprefix(LIVE) in text:
            raise
        raise UsageError(f"{target}: {text}") from fault


def replay(data: memoryview, name: str) -> Source:
    """A recording as a source."""
    memory = ReplayReader(data)
    digest = digest_of(data)
    return Source(memory, name, lambda chunks: _recorded(data, digest, chunks), again=memory.look_again)


@contextmanager
def _live(target: str) -> Iterator[Source]:
    machine = target.removeprefix(LIVE)
    if not machine.strip():
        raise UsageError(f"{target} names no machine: a process id or a QMP socket must follow; {_RIGHT}")
    with _named(target):
        live = attach_qemu(machine)
    try:
        recorder = RecordingReader(live)

        def recording() -> bytes:
            file = io.BytesIO()
            recorder.write(file, (*recorder.gaps, *live.disturbances()))
            return file.getvalue()

        written: list[bytes] = []

        def once() -> bytes:
            if not written:
                written.append(recording())
            return written[0]

        def describe(chunks: tuple[int, ...]) -> Evidence:
            data = memoryview(once())
            return _recorded(data, digest_of(data), chunks)

        name = f"{LIVE}{Path(machine).name}"
        yield Source(recorder, name, describe, recording=once, again=recorder.look_again)
    finally:
        live.close()


def _recorded(data: memoryview, digest: str, chunks: tuple[int, ...]) -> Evidence:
    cited = tuple((i, hashlib.sha256(data[i * CHUNK : (i + 1) * CHUNK]).hexdigest()) for i in chunks)
    return Evidence(
        id="memory", kind="memory/recording", name=_RECORDING_NAME, size=len(data), digest=digest, chunks=cited
    )


@contextmanager
def _image(target: str) -> Iterator[Source]:
    with _named(target):
        memory = open_image(target)
    descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    hashing = _Hashing(descriptor, os.lseek(descriptor, 0, os.SEEK_END))
    name = Path(target).name

    def describe(chunks: tuple[int, ...]) -> Evidence:
        digests = hashing.wait()
        return Evidence(
            id="memory",
            kind=f"memory/{memory.format}",
            name=name,
            size=hashing.size,
            digest=combine(digests),
            chunks=tuple((i, digests[i].hex()) for i in chunks if i < len(digests)),
            notes=tuple(str(gap) for gap in memory.gaps),
        )

    try:
        yield Source(memory, name, describe, hashing.start)
    finally:
        hashing.stop()
        os.close(descriptor)


class _Hashing:
    """The chunks' digests of a file, computed beside the judging by two threads, or after it where none may start."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size
        self._pool: ThreadPoolExecutor | None = None
        self._running: list[Future[bytes]] | None = None
        self._digests: list[bytes] | None = None

    def start(self) -> None:
        """Begin; the process that begins must be the one that waits."""
        self._pool = ThreadPoolExecutor(_THREADS)
        try:
            self._running = [self._pool.submit(self._chunk, at) for at in range(0, self.size, CHUNK)]
        except RuntimeError:  # no thread can be started
            self.stop()

    def stop(self) -> None:
        """Give up what was not computed; the file is not read any more afterwards."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def wait(self) -> list[bytes]:
        """The digests in order."""
        if self._digests is None and self._running is None:
            self._digests = [self._chunk(at) for at in range(0, self.size, CHUNK)]
        elif self._digests is None:
            self._digests = [future.result() for future in self._running or ()]
        return self._digests

    def _chunk(self, at: int) -> bytes:
        return hashlib.sha256(os.pread(self._descriptor, CHUNK, at)).digest()
