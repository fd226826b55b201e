import ctypes
import faulthandler
import mmap
import os
import queue
import resource
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hypervigil.app import confine
from hypervigil.app.confine import PROGRESS, RESULT, Send, run_confined
from hypervigil.core.errors import (
    DecodeError,
    EvidenceError,
    HypervigilError,
    MissingMemory,
    UnsupportedEvidence,
    UsageError,
)

REFUSED = b"refused"
CLONE3, UNSHARE = 435, {"x86_64": 272}.get(os.uname().machine, 97)
_GET_NO_NEW_PRIVS, _GET_SECCOMP = 39, 21


def quiet(_: bytes) -> None:
    pass


def confined(*questions: Callable[[], object]) -> list[str]:
    """What questions give inside, all asked in one child; the number of the OSError where one is refused."""

    def answer(question: Callable[[], object]) -> str:
        try:
            return repr(question())
        except OSError as fault:
            return f"errno {fault.errno}"

    return run_confined(lambda _: "\n".join(map(answer, questions)).encode(), quiet).decode().splitlines()


def system_call(number: int, *arguments: int) -> int:
    """Make a system call; raise the OSError that it gives."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if (result := libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in arguments))) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


def test_the_result_comes_back_whatever_its_size() -> None:
    for size in (0, 1, 70_000, 3 << 20):
        assert run_confined(lambda _, n=size: b"x" * n, quiet) == b"x" * size  # type: ignore[misc] # a lambda's default


def test_progress_comes_before_the_result_in_order() -> None:
    seen: list[bytes] = []

    def work(send: Send) -> bytes:
        for step in (b"one", b"", b"three" * 50_000):
            send(PROGRESS, step)
        return b"done"

    assert run_confined(work, seen.append) == b"done"
    assert seen == [b"one", b"", b"three" * 50_000]


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        (UsageError("give a file"), UsageError, "give a file"),
        (UnsupportedEvidence("a disk"), EvidenceError, "a disk"),
        (DecodeError("lime", "odd"), EvidenceError, "lime: odd"),
        (MissingMemory(4096, 8), EvidenceError, "physical 0x1000"),
        (HypervigilError("plain"), HypervigilError, "plain"),
        (ZeroDivisionError("by zero"), HypervigilError, "internal error: ZeroDivisionError: by zero"),
        (MemoryError(), HypervigilError, "the evidence needs more memory than 1536 MiB"),
        (SystemExit(0), HypervigilError, "internal error: SystemExit: 0"),
        (KeyboardInterrupt(), HypervigilError, "internal error: KeyboardInterrupt"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__) if not isinstance(value, str) else "",
)
def test_what_goes_wrong_inside_is_raised_outside(fault: BaseException, kind: type[HypervigilError], text: str) -> None:
    def work(_send: Send) -> bytes:
        raise fault

    with pytest.raises(kind) as raised:
        run_confined(work, quiet)
    assert text in str(raised.value)


def test_a_traceback_is_shown_to_those_who_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERVIGIL_DEBUG", "1")

    def work(_send: Send) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(HypervigilError, match=r"Traceback(?s:.*)in work"):
        run_confined(work, quiet)


def test_a_child_that_ends_without_a_word_is_told() -> None:
    with pytest.raises(HypervigilError, match="ended without a result"):
        run_confined(lambda _: os._exit(0), quiet)


def test_a_child_that_ends_within_a_frame_is_told() -> None:
    def work(send: Send) -> bytes:
        (pipe,) = [int(cell.cell_contents) for cell in getattr(send, "__closure__", ())]
        os.write(pipe, RESULT + (1000).to_bytes(4, "little") + b"short")
        os._exit(0)

    with pytest.raises(HypervigilError, match="ended without a result"):
        run_confined(work, quiet)


def test_more_than_a_frame_holds_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "_MAX_FRAME", 1000)
    assert len(run_confined(lambda _: b"x" * 1000, quiet)) == 1000
    with pytest.raises(HypervigilError, match="1001 bytes; 1000 can be handed on"):
        run_confined(lambda _: b"x" * 1001, quiet)


def test_an_image_that_is_cut_short_meanwhile_ends_the_child_only(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"x" * 2 * mmap.PAGESIZE)
    with path.open("r+b") as file:
        image = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        file.truncate(0)

    def work(_send: Send) -> bytes:
        faulthandler.disable()
        return image[:1]

    with pytest.raises(HypervigilError, match="ended by SIGBUS; was the image cut short"):
        run_confined(work, quiet)


def test_a_caller_that_gives_up_leaves_no_child_behind() -> None:
    began = time.monotonic()

    def work(send: Send) -> bytes:
        send(PROGRESS, b"started")
        time.sleep(60)
        return b""

    def stop(_: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_confined(work, stop)
    assert time.monotonic() - began < 30
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_no_file_can_be_opened(tmp_path: Path) -> None:
    (tmp_path / "readable").write_text("secret")
    asked: list[Callable[[], object]] = [
        (tmp_path / "readable").read_text,
        lambda: os.open(tmp_path / "new", os.O_CREAT | os.O_WRONLY),
    ]
    assert confined(*asked) == ["errno 1"] * len(asked)
    assert not (tmp_path / "new").exists()


def test_no_file_can_be_changed_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "evidence"
    path.write_text("kept")
    changes: list[Callable[[], object]] = [
        lambda: os.truncate(path, 0),
        path.unlink,
        lambda: path.rename(tmp_path / "other"),
        lambda: path.chmod(0),
        (tmp_path / "folder").mkdir,
        (tmp_path / "folder").rmdir,
        lambda: (tmp_path / "link").symlink_to("evidence"),
        lambda: os.link(path, tmp_path / "hard"),
        lambda: os.mkfifo(tmp_path / "pipe"),
        lambda: os.utime(path),
        lambda: os.chown(path, 1, 1),
        lambda: os.setxattr(path, "user.mark", b"x"),
        lambda: os.removexattr(path, "user.mark"),
    ]
    assert confined(*changes) == ["errno 1"] * len(changes)
    assert [p.name for p in tmp_path.iterdir()] == ["evidence"]
    assert path.read_text() == "kept"


def test_no_socket_no_program_and_no_other_process() -> None:
    parent = os.getpid()
    asked: list[Callable[[], object]] = [
        socket.socket,
        lambda: socket.socket(socket.AF_UNIX),
        lambda: os.execv("/bin/true", ["true"]),  # noqa: S606 - it is refused
        lambda: os.kill(parent, 0),
        lambda: os.pidfd_open(parent),
    ]
    assert confined(*asked) == ["errno 1"] * len(asked)


def test_no_process_and_no_thread_can_be_started() -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def thread() -> str:
        try:
            threading.Thread(target=print).start()
        except RuntimeError as fault:
            return str(fault)
        return "started"

    asked: list[Callable[[], object]] = [
        os.fork,
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: system_call(CLONE3, 0, 0),
        lambda: system_call(UNSHARE, 0x1000_0000),  # a user namespace of its own
        thread,
        libc.getppid,
    ]
    *refused, thread_said, alive = confined(*asked)
    assert refused == ["errno 1"] * 4
    assert thread_said == repr("can't start new thread")
    assert alive == str(os.getpid())


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls of x86-64")
def test_the_other_form_of_a_system_call_is_refused_too() -> None:
    x32 = 0x4000_0000
    asked = [lambda n=number: system_call(n, 0, 0) for number in (39, x32 | 39, x32 | 2, 0x7FFF_FFFF)]  # getpid, open
    allowed, *refused = confined(*asked)
    assert allowed.isdigit()
    assert refused == ["errno 1"] * 3


def test_rights_are_given_up_for_good() -> None:
    libc = ctypes.CDLL(None)
    assert confined(lambda: libc.prctl(_GET_NO_NEW_PRIVS, 0, 0, 0, 0), lambda: libc.prctl(_GET_SECCOMP)) == ["1", "2"]
    if os.geteuid() == 0:
        asked = (os.getresuid, os.getresgid, os.getgroups, lambda: os.setuid(0))
        nobody = "(65534, 65534, 65534)"
        assert confined(*asked) == [nobody, nobody, "[]", "errno 1"]


def test_memory_and_files_have_limits() -> None:
    kinds = (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS)
    core, size, memory = confined(*(lambda kind=kind: resource.getrlimit(kind) for kind in kinds))
    assert (core, size) == ("(0, 0)", "(0, 0)")
    soft, hard = memory.strip("()").split(", ")
    assert 0 < int(soft) == int(hard) < 1 << 40


def test_too_much_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "MEMORY_LIMIT", 64 << 20)
    with pytest.raises(HypervigilError, match="needs more memory than 64 MiB"):
        run_confined(lambda _: bytes(256 << 20), quiet)


def test_threads_that_were_started_before_work_inside_and_are_confined(tmp_path: Path) -> None:
    path = tmp_path / "readable"
    path.write_text("secret")
    pool = ThreadPoolExecutor(1)
    asked: queue.Queue[str] = queue.Queue()
    answers: queue.Queue[str] = queue.Queue()

    def answer() -> None:
        asked.get()
        try:
            answers.put(path.read_text())
        except OSError as fault:
            answers.put(f"errno {fault.errno}")

    def work(_send: Send) -> bytes:
        asked.put("what is in it?")
        return answers.get().encode()

    def begin() -> None:
        pool.submit(answer)

    assert run_confined(work, quiet, begin) == b"errno 1"


def test_a_file_that_was_open_before_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"content")
    with (tmp_path / "image").open("rb", buffering=0) as file:
        assert run_confined(lambda _: file.read(), quiet) == b"content"
