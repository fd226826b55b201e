import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from hypervigil.core.errors import UsageError
from hypervigil.lab import qemu
from hypervigil.lab.kernels import Kernel
from hypervigil.lab.qemu import Place, clear_remains, command, cpu, each_running, running, words
from hypervigil.lab.scenarios import Host


def kernel(release: str = "6.1.0-9-amd64") -> Kernel:
    return Kernel(release, {}, Path("vmlinuz"), Path("modules"))


@pytest.mark.parametrize(
    ("release", "flags", "expected"),
    [
        ("6.1.0-9-amd64", "", "EPYC,+svm"),
        ("6.12.1+deb13-amd64", "", "EPYC,+svm,-cx16"),
        ("7.2.13+deb14-amd64", "+la57", "EPYC,+svm,-cx16,+la57"),
    ],
)
def test_new_kernels_get_a_processor_without_what_qemu_does_wrong(release: str, flags: str, expected: str) -> None:
    assert cpu(kernel(release), Host(cpu_flags=flags)) == expected


def test_the_kernels_words_tell_what_to_start() -> None:
    assert words(Host(cmdline="nokaslr", vms=2, vcpus=3)).split()[1:] == [
        "panic=-1",
        "lab.vms=2",
        "lab.vcpus=3",
        "nokaslr",
    ]


def test_qemu_ends_with_this_program_and_shares_its_memory(tmp_path: Path) -> None:
    line = command(tmp_path, tmp_path / "ram", kernel(), tmp_path / "initrd", Host(memory=384))
    assert line[:4] == ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"]
    assert f"memory-backend-file,id=ram,size=384M,mem-path={tmp_path}/ram,share=on" in line
    assert "tcg,thread=single" in line


def record(cache: Path, place: Place) -> None:
    place.directory.mkdir(parents=True)
    place.ram.parent.mkdir(parents=True)
    (place.directory / "machine.json").write_bytes(msgspec.json.encode(place, enc_hook=str))
    (cache / "running").mkdir(parents=True, exist_ok=True)
    (cache / "running" / str(place.pid)).symlink_to(place.directory)


def test_remains_of_a_killed_program_are_removed_and_what_runs_is_kept(tmp_path: Path) -> None:
    code = "import sys; print(flush=True); sys.stdin.read()"
    line = [sys.executable, "-c", code, str(tmp_path / "live" / "ram")]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sleeper:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        live = Place(sleeper.pid, tmp_path / "a", tmp_path / "live" / "ram", kernel(), Host())
        dead = Place(os.getpid(), tmp_path / "b", tmp_path / "dead" / "ram", kernel(), Host(vms=2))
        for place in (live, dead):
            record(tmp_path, place)
        (tmp_path / "running" / "odd").touch()
        assert list(each_running(tmp_path)) == [live]
        clear_remains(tmp_path)
        assert live.directory.exists()
        assert not dead.directory.exists()
        assert not dead.ram.parent.exists()
        assert not (tmp_path / "running" / "odd").exists()


def test_a_process_that_took_over_the_number_is_not_the_machine(tmp_path: Path) -> None:
    assert not Place(os.getpid(), tmp_path, tmp_path / "no-such-ram", kernel(), Host()).runs()
    assert not Place(2**22 + 1, tmp_path, tmp_path / "ram", kernel(), Host()).runs()


@pytest.mark.parametrize("memory", [0, -1, 4096])
def test_memory_must_be_one_range(tmp_path: Path, memory: int) -> None:
    with (
        pytest.raises(UsageError, match="between 1 and 2048"),
        running(kernel(), Path(), Host(memory=memory), tmp_path),
    ):
        pass


def test_a_disk_without_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "_SHARED", tmp_path / "none")
    monkeypatch.setattr("shutil.disk_usage", lambda path: _Free())  # noqa: ARG005 - its signature
    with pytest.raises(UsageError, match="1 MiB are free, the host's memory needs 256"):
        qemu._roomy(tmp_path, 256 << 20)


class _Free:
    free = 1 << 20


def test_a_qemu_that_does_not_start_tells_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu, "_SHARED", tmp_path / "none")
    monkeypatch.setattr(qemu, "command", lambda *_: ["sh", "-c", "echo no such machine >&2; exit 1"])
    with (
        pytest.raises(UsageError, match="QEMU did not start: no such machine"),
        running(kernel(), Path(), Host(), tmp_path),
    ):
        pass
    assert [path for path in tmp_path.iterdir() if path.name.startswith("hypervigil")] == []
