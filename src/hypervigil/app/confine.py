"""Parsing as an unprivileged process without network, and with bounded memory.

Memory images come from attackers and responders run as root. So once a source is open, a child process

1. gives up its groups and becomes ``nobody``, if it was root;
2. takes `prctl(PR_SET_NO_NEW_PRIVS)`: no program it started could gain rights;
3. leaves the network, where the system lets it (`unshare(CLONE_NEWNET)`);
4. bounds its address space, forbids itself core dumps and writing files;
5. starts the threads that it needs;
6. filters its system calls, in all of its threads: opening files and changing them by name, sockets, starting
   programs, processes and threads, other namespaces, tracing and signalling others, keys are refused from here on, and
   so is the x32 form of every call, by which a filter could be walked around (seccomp, on x86-64 and aarch64).

Everything it still needs is loaded before. numpy's linear algebra (OpenBLAS) would start threads of its own at its
first use after the fork; nothing here uses it. What it has to say goes through a pipe as frames: a byte for the kind,
four for the length, the body.

Sources: prctl(2), seccomp(2), unshare(2), setrlimit(2); Linux include/uapi/linux/seccomp.h, filter.h, audit.h.
"""

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from hypervigil.core.errors import EvidenceError, HypervigilError, UsageError

Send = Callable[[bytes, bytes], None]
"""Sends one frame: its kind, one byte, and its body."""

RESULT, PROGRESS, FAULT, USER_FAULT, EVIDENCE_FAULT = b"R", b"P", b"F", b"U", b"E"
MEMORY_LIMIT = 3 << 29
"""Bytes by which the child may grow: 1.5 GiB."""

_NOBODY = 65534
_HEADER = struct.Struct("<cI")
_MAX_FRAME = 1 << 30
_NO_NEW_PRIVS = 38
_SET_FILTER, _ALL_THREADS = 1, 1  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
_CLONE_NEWNET = 0x4000_0000
_ALLOW, _ERRNO, _KILL = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
_EPERM = 1
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_X32 = 0x4000_0000  # __X32_SYSCALL_BIT; no call of any architecture has a number as high
_ARCHITECTURES: dict[str, tuple[int, int, tuple[tuple[int, ...], ...]]] = {
    # machine: (audit number, seccomp, refused calls: a line each for
    # open openat openat2 creat open_by_handle_at, socket connect bind accept, execve execveat,
    # ptrace process_vm_readv process_vm_writev kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo
    # pidfd_open pidfd_getfd pidfd_send_signal,
    # unlink unlinkat rename renameat renameat2 rmdir mkdir mkdirat link linkat symlink symlinkat mknod mknodat,
    # truncate chmod fchmodat fchmodat2 chown lchown fchownat utime utimes futimesat utimensat setxattr lsetxattr
    # removexattr lremovexattr,
    # mount bpf perf_event_open io_uring_setup add_key request_key keyctl,
    # fork vfork clone clone3 unshare setns)
    "x86_64": (
        0xC000003E,
        317,
        (
            (2, 257, 437, 85, 304, 41, 42, 49, 43, 59, 322),
            (101, 310, 311, 62, 200, 234, 129, 297, 434, 438, 424),
            (87, 263, 82, 264, 316, 84, 83, 258, 86, 265, 88, 266, 133, 259),
            (76, 90, 268, 452, 92, 94, 260, 132, 235, 261, 280, 188, 189, 197, 198),
            (165, 321, 298, 425, 248, 249, 250),
            (57, 58, 56, 435, 272, 308),
        ),
    ),
    "aarch64": (
        0xC00000B7,
        277,
        (
            (56, 437, 265, 198, 203, 200, 202, 221, 281),
            (117, 270, 271, 129, 130, 131, 138, 240, 434, 438, 424),
            (35, 38, 276, 34, 37, 36, 33),
            (45, 53, 452, 54, 88, 5, 6, 14, 15),
            (40, 280, 241, 425, 217, 218, 219),
            (220, 435, 97, 268),
        ),
    ),
}


def run_confined(
    work: Callable[[Send], bytes],
    on_progress: Callable[[bytes], None],
    begin: Callable[[], None] = lambda: None,
) -> bytes:
    """Run `work` in a confined child and return its result.

    Args:
        work: gets a function to send progress with, and returns its result; everything it needs is open and loaded.
        on_progress: called with the body of each progress frame.
        begin: called in the child before `work`, when rights are given up and threads may still be started; it must
            not look into the evidence. The threads are confined with the rest.

    Raises:
        UsageError, EvidenceError: what `work` raised.
        HypervigilError: the child ended without a result, such as for want of memory.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(work, writer, begin)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as stream:
            return _listen(stream.read, on_progress)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
        _explain(status)


def _listen(read: Callable[[int], bytes], on_progress: Callable[[bytes], None]) -> bytes:
    while True:
        header = read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise HypervigilError("the process that read the evidence ended without a result")
        kind, size = _HEADER.unpack(header)
        body = read(size) if size <= _MAX_FRAME else b""
        if len(body) < size:
            raise HypervigilError("the process that read the evidence ended without a result")
        if kind == RESULT:
            return body
        if kind == PROGRESS:
            on_progress(body)
        elif kind == USER_FAULT:
            raise UsageError(body.decode(errors="replace"))
        elif kind == EVIDENCE_FAULT:
            raise EvidenceError(body.decode(errors="replace"))
        else:
            raise HypervigilError(body.decode(errors="replace"))


def _explain(status: int) -> None:
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
        name = signal.Signals(os.WTERMSIG(status)).name
        raise HypervigilError(f"the process that read the evidence was ended by {name}; was the image cut short?")


def _child(work: Callable[[Send], bytes], writer: int, begin: Callable[[], None]) -> NoReturn:
    def send(kind: bytes, body: bytes) -> None:
        if len(body) > _MAX_FRAME:
            raise HypervigilError(f"what was found has {len(body)} bytes; {_MAX_FRAME} can be handed on")
        with memoryview(_HEADER.pack(kind, len(body)) + body) as data:
            sent = 0
            while sent < len(data):
                sent += os.write(writer, data[sent:])

    status = 1
    try:
        confine(begin)
        send(RESULT, work(send))
        status = 0
    except UsageError as fault:
        send(USER_FAULT, str(fault).encode())
    except EvidenceError as fault:
        send(EVIDENCE_FAULT, str(fault).encode())
    except MemoryError:
        send(FAULT, f"the evidence needs more memory than {MEMORY_LIMIT >> 20} MiB".encode())
    except BaseException as fault:  # noqa: BLE001 - the last place where it can be told
        detail = traceback.format_exc() if os.environ.get("HYPERVIGIL_DEBUG") else f"{type(fault).__name__}: {fault}"
        send(FAULT, f"internal error: {detail}".encode())
    finally:
        os._exit(status)


def confine(begin: Callable[[], None] = lambda: None) -> None:
    """Give up what parsing does not need; what the system does not let us give up is kept back by the rest.

    Args:
        begin: what may start threads, called last before no more can be started.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _limit()
    libc.unshare(_CLONE_NEWNET)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    begin()
    _filter_calls(libc)


def _limit() -> None:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - before anything is loaded lazily
        pages = int(file.read().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_LIMIT
    for kind, value in (
        (resource.RLIMIT_AS, limit),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (allowed, allowed))


def _filter_calls(libc: ctypes.CDLL) -> None:
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return
    architecture, seccomp, lines = known
    refused = [call for line in lines for call in line]
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    program.append((_AT_LEAST, len(refused) + 1, 0, _X32))
    for left, call in zip(range(len(refused), 0, -1), refused, strict=True):
        program.append((_EQUAL, left, 0, call))
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    code = b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(buffer))
    libc.syscall(seccomp, _SET_FILTER, _ALL_THREADS, ctypes.create_string_buffer(header, len(header)))
