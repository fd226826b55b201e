"""The process under test plays QEMU: its own memory is the guest's, its own socket the monitor."""

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypervigil.core.errors import MissingMemory, UsageError
from hypervigil.core.evidence import Span
from hypervigil.core.units import PhysAddr
from hypervigil.memory import qemu
from hypervigil.memory.qemu import QemuMemory, attach_process, attach_qemu, attach_socket
from hypervigil.memory.qemu_layout import Block
from tests.memory.fake_qmp import REGISTERS, TREE, Script, line, qmp_server

SIZE = 1 << 20


class Guest:
    """Memory of this process and a monitor's script that speaks of it, in two pieces with a hole between."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, SIZE)
        self.memory[:] = b"".join(page.to_bytes(8, "little") * 512 for page in range(SIZE // 4096))
        self.host = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        half = SIZE // 2
        answers: dict[str, Any] = {
            "query-status": [{"status": "running"}],
            "info mtree -f": TREE + line(0, half, "ram", "pc.ram") + line(SIZE, SIZE + half, "ram", "pc.ram", half),
            "info registers -a": REGISTERS,
        }
        for address in (0, half - 1):
            answers[f"gpa2hva {address:#x}"] = f"Host virtual address for it is {self.host + address:#x}\r\n"
        for address in (SIZE, SIZE + half - 1):
            answers[f"gpa2hva {address:#x}"] = f"is {self.host + address - half:#x}\r\n"
        self.script = Script(answers)


@pytest.fixture
def guest() -> Guest:
    return Guest()


@pytest.fixture
def path(guest: Guest, tmp_path: Path) -> Iterator[str]:
    with qmp_server(tmp_path / "qmp", guest.script):
        yield str(tmp_path / "qmp")


def test_memory_is_read_where_the_monitor_says(guest: Guest, path: str) -> None:
    memory = attach_qemu(path)
    assert (memory.pid, memory.status, memory.gaps) == (os.getpid(), "running", ())
    assert [(r.start, r.end) for r in memory.ranges] == [(0, SIZE // 2), (SIZE, SIZE + SIZE // 2)]
    assert memory.read(PhysAddr(0x3008), 8) == (3).to_bytes(8, "little")
    assert memory.view(PhysAddr(SIZE), 8) == (SIZE // 2 // 4096).to_bytes(8, "little")
    assert [cpu.cr3 for cpu in memory.registers] == [0xABC000]
    assert memory.spans(PhysAddr(0x3000), 16) == (Span("memory", 0x3000, 0x3010),)
    memory.close()
    assert guest.script.asked[-1] == "info registers -a"
    assert {asked.split()[0] for asked in guest.script.asked} == {"qmp_capabilities", "info", "gpa2hva", "query-status"}


def test_what_changes_is_seen(guest: Guest, path: str) -> None:
    memory = attach_socket(path)
    assert memory.read(PhysAddr(0), 8) == bytes(8)
    guest.memory[0:8] = b"tampered"
    assert memory.read(PhysAddr(0), 8) == b"tampered"
    memory.close()


@pytest.mark.parametrize(("address", "size"), [(SIZE // 2 - 1, 2), (SIZE * 2, 1), (0, -1), (0, 1 << 60)])
def test_what_is_no_memory_of_the_machine_is_missing(path: str, address: int, size: int) -> None:
    memory = attach_socket(path)
    for ask in (memory.read, memory.view, memory.spans):
        with pytest.raises(MissingMemory):
            ask(PhysAddr(address), size)
    memory.close()


def test_bulk_runs_overlap_where_a_range_is_cut(guest: Guest, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "WINDOW", 3 * 65536)
    monkeypatch.setattr(qemu, "OVERLAP", 65536)
    memory = attach_socket(path)
    runs = [(int(start), bytes(run)) for start, run in memory.each_run()]
    memory.close()
    assert [(start, len(run)) for start, run in runs][:4] == [
        (0, 196608),
        (131072, 196608),
        (262144, 196608),
        (393216, 131072),
    ]
    assert all(run == guest.memory[start : start + len(run)] for start, run in runs if start < SIZE // 2)
    assert runs[4][0] == SIZE


def test_a_change_of_the_run_state_is_told(guest: Guest, path: str) -> None:
    guest.script.answers["query-status"] = [{"status": "running"}, {"status": "running"}, {"status": "paused"}]
    memory = attach_socket(path)
    assert memory.disturbances() == ()
    assert [str(gap) for gap in memory.disturbances()] == [
        "run state of the machine: it went from running to paused while it was read"
    ]
    memory.close()


def test_registers_that_cannot_be_read_are_a_gap(guest: Guest, path: str) -> None:
    guest.script.answers["info registers -a"] = "nothing"
    memory = attach_socket(path)
    assert memory.registers == ()
    assert [gap.what for gap in memory.gaps] == ["registers"]
    memory.close()


def test_a_monitor_that_speaks_of_another_process_is_refused(guest: Guest, path: str) -> None:
    for question in [asked for asked in guest.script.answers if asked.startswith("gpa2hva")]:
        guest.script.answers[question] = f"is {0x1000 + int(question.split()[1], 16):#x}"
    with pytest.raises(UsageError, match="does not hold the machine's memory"):
        attach_socket(path)


def test_no_such_process() -> None:
    with pytest.raises(UsageError, match="there is no process 4194305"):
        attach_qemu("4194305")


@pytest.fixture
def child() -> Iterator[int]:
    """Process id of one that has a shared mapping of 3084 KiB, a command line that says so, and waits."""
    code = (
        "import mmap, sys; m = mmap.mmap(-1, 3084 << 10); m[:4] = b'QEMU'; m[-4:] = b'LAST';"
        "print('up', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "-machine", "q35", "-m", "size=3084k"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.communicate(b"")


def test_a_process_without_monitor_is_read_by_its_command_line(child: int) -> None:
    memory = attach_process(child)
    assert memory.read(PhysAddr(0), 4) == b"QEMU"
    assert memory.read(PhysAddr((3084 << 10) - 4), 4) == b"LAST"
    assert [gap.what for gap in memory.gaps] == ["layout of the machine's memory"]
    assert [gap.why for gap in memory.disturbances()] == ["no monitor could be asked"]
    memory.close()


def test_a_process_that_ended_is_missing_memory(guest: Guest) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    first = int(Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8").split("-")[0], 16)
    memory = QemuMemory(process.pid, (Block(0, 4096, first),), None)
    process.communicate(b"\n")
    with pytest.raises(MissingMemory, match=r"ended|memory"):
        memory.read(PhysAddr(0), 16)
    memory.close()
    assert guest.script.asked == []


def test_the_socket_of_a_command_line_is_used(guest: Guest, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = qemu._proc
    for arguments in (
        ["-qmp", f"unix:{path},server=on,wait=off"],
        ["-chardev", f"socket,id=mon0,path={path},server=on", "-mon", "chardev=mon0,mode=control"],
        ["-qmp", "unix:/nowhere", "-qmp", f"unix:{path}"],
    ):
        line_ = "\0".join(["qemu", *arguments, ""])
        monkeypatch.setattr(
            qemu, "_proc", lambda pid, name, line_=line_: line_ if name == "cmdline" else own(pid, name)
        )
        memory = attach_process(os.getpid())
        assert memory.status == "running"
        memory.close()
    assert guest.script.asked.count("query-status") == 3


def test_a_process_that_is_no_qemu_is_told_what_is_needed() -> None:
    with pytest.raises(UsageError, match="names no QMP socket"):
        attach_process(os.getpid())
