import hashlib
import os
import threading
from pathlib import Path

import pytest

from hypervigil.app import sources
from hypervigil.app.sources import open_source, replay
from hypervigil.core.digest import CHUNK, digest_of
from hypervigil.core.errors import DecodeError, UnsupportedEvidence, UsageError
from hypervigil.core.units import PhysAddr
from hypervigil.memory.open import read_image
from tests.app.live import LiveImage
from tests.decode.elf_encoder import elf


def test_an_image_is_described_by_name_size_and_digests(tmp_path: Path) -> None:
    content = b"a" * CHUNK + b"b" * CHUNK + b"tail"
    (tmp_path / "host.raw").write_bytes(content)
    with open_source(str(tmp_path / "host.raw")) as source:
        source.begin()
        evidence = source.describe((0, 2, 99))
    assert (source.name, evidence.name, evidence.kind, evidence.id) == ("host.raw", "host.raw", "memory/raw", "memory")
    assert (evidence.size, evidence.digest) == (len(content), digest_of(content))
    assert evidence.chunks == (
        (0, hashlib.sha256(b"a" * CHUNK).hexdigest()),
        (2, hashlib.sha256(b"tail").hexdigest()),
    )
    assert source.recording is None


def test_what_limits_an_image_is_noted(tmp_path: Path) -> None:
    (tmp_path / "core").write_bytes(elf([(0, b"abcd")], memory_size=16))
    with open_source(str(tmp_path / "core")) as source:
        source.begin()
        assert source.describe(()).notes == ("physical 0x4 to 0x10: the dump names it and does not hold it",)


def test_the_digest_is_of_what_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"opened" * 1000)
    with open_source(str(path)) as source:
        path.unlink()
        path.write_bytes(b"other" * 1000)
        source.begin()
        assert source.describe(()).digest == digest_of(b"opened" * 1000)
        assert source.memory.read(PhysAddr(0), 6) == b"opened"


@pytest.mark.parametrize("begun", [True, False])
def test_an_image_is_let_go_afterwards(tmp_path: Path, *, begun: bool) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"x" * 3 * CHUNK)
    with open_source(str(path)) as source:
        if begun:
            source.begin()
        source.memory.read(PhysAddr(0), 8)
    del source
    held = [link for link in Path("/proc/self/fd").iterdir() if link.exists() and link.samefile(path)]
    assert held == []
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert not any(thread.name.startswith("ThreadPoolExecutor") for thread in threading.enumerate())


@pytest.mark.parametrize("begun", ["begun", ""])
def test_the_digest_is_the_same_where_no_thread_can_be_started(
    begun: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    (tmp_path / "image").write_bytes(b"x" * CHUNK + b"y")
    monkeypatch.setattr(threading.Thread, "start", refused)
    with open_source(str(tmp_path / "image")) as source:
        if begun:
            source.begin()
        assert source.describe(()) == source.describe(())
        assert source.describe(()).digest == digest_of(b"x" * CHUNK + b"y")


@pytest.mark.parametrize("target", ["local", "libvirt:vm1", "ssh://host", "vsphere://a/b", "proxmox://x"])
def test_targets_of_the_future_are_refused_by_name(target: str) -> None:
    with (
        pytest.raises(UsageError, match=f"{target}: this kind of target is not read; give a memory image"),
        open_source(target),
    ):
        pass


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "the target is empty; "),
        (" ", "the target is empty; "),
        ("nowhere.raw", "nowhere.raw: no such file or directory$"),
        ("xen:dom0", "xen:dom0: no such file or directory$"),
        (".", r"\.: a memory image must be a file or a block device; save the stream to a file first"),
        ("qemu:/nowhere/qmp.sock", "/nowhere/qmp.sock: no such file or directory; is it the QMP socket"),
        ("qemu:", "qemu: names no machine: a process id or a QMP socket must follow; "),
        ("qemu:guest-1", "guest-1: no such file or directory; is it the QMP socket"),
        ("qemu:4194305", "there is no process 4194305$"),
    ],
)
def test_what_is_not_there_is_the_users_error(target: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}") as raised, open_source(target):
        pass
    if message.endswith("; "):
        assert str(raised.value).endswith("; give a memory image, qemu:PID or qemu:SOCKET")


def test_a_folder_a_pipe_and_a_disk_are_no_memory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "disk").write_bytes(b"QFI\xfb" + bytes(64))
    for name, kind in ((".", UsageError), ("pipe", UsageError), ("disk", UnsupportedEvidence)):
        with pytest.raises(kind), open_source(str(tmp_path / name)):
            pass


def test_a_live_machine_is_recorded_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveImage(bytearray(b"first!" * 4096))
    asked: list[str] = []

    def attach(target: str) -> LiveImage:
        asked.append(target)
        return live

    monkeypatch.setattr(sources, "attach_qemu", attach)
    with open_source("qemu:/run/host/qmp.sock") as source:
        assert source.memory.read(PhysAddr(0), 6) == b"first!"
        live.data[:6] = b"second"
        assert source.memory.read(PhysAddr(0), 6) == b"first!"
        assert source.recording is not None
        recording = source.recording()
        evidence = source.describe((0,))
        assert source.recording() is recording
    assert (asked, source.name, live.closed) == (["/run/host/qmp.sock"], "qemu:qmp.sock", True)
    assert (evidence.kind, evidence.digest, evidence.size) == (
        "memory/recording",
        digest_of(recording),
        len(recording),
    )
    again = read_image(memoryview(recording))
    assert again.read(PhysAddr(0), 6) == b"first!"
    assert [gap.what for gap in again.gaps] == ["run state of the machine"]


def test_each_chunk_of_a_recording_has_its_own_digest() -> None:
    data = bytes(CHUNK) + b"\1" * 5
    found = sources._recorded(memoryview(data), "", (0, 1))
    assert found.chunks == tuple(
        (index, hashlib.sha256(part).hexdigest()) for index, part in enumerate((bytes(CHUNK), b"\1" * 5))
    )


def test_a_live_machine_is_let_go_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveImage(bytearray(4096))
    monkeypatch.setattr(sources, "attach_qemu", lambda _: live)
    with pytest.raises(ZeroDivisionError), open_source("qemu:1"):
        raise ZeroDivisionError
    assert live.closed


def test_a_replay_says_the_same_of_its_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveImage(bytearray(b"data" * 4096))
    monkeypatch.setattr(sources, "attach_qemu", lambda _: live)
    with open_source("qemu:77") as source:
        source.memory.read(PhysAddr(0), 100)
        assert source.recording is not None
        recording = source.recording()
        evidence = source.describe((0,))
    again = replay(memoryview(recording), source.name)
    assert again.describe((0,)) == evidence
    assert again.memory.read(PhysAddr(0), 100) == (b"data" * 25)


def test_a_replay_of_anything_else_is_refused() -> None:
    with pytest.raises(DecodeError):
        replay(memoryview(b"not a recording, but long enough to look like one"), "x")
