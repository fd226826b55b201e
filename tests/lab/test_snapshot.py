from pathlib import Path

import msgspec
import pytest

from hypervigil.core.errors import UsageError
from hypervigil.lab import snapshot
from hypervigil.lab.kernels import Kernel
from hypervigil.lab.qmp import Qmp
from hypervigil.lab.scenarios import Host

KERNEL = Kernel("6.1.0-0-test", {"linux-image": "6.1-1"}, Path("vmlinuz"), Path("modules"))


class Monitor(Qmp):
    """QEMU that saves its state as text."""

    def __init__(self, *statuses: str) -> None:
        self.statuses = list(statuses)
        self.commands: list[str] = []

    def execute(self, command: str, **arguments: object) -> object:
        self.commands.append(command)
        if command == "migrate":
            Path(str(arguments["uri"]).split("'")[1]).write_text("state")
        return {"status": self.statuses.pop(0)} if command == "query-migrate" else {}


def test_memory_and_devices_are_kept_and_come_back(tmp_path: Path) -> None:
    ram = tmp_path / "ram"
    ram.write_bytes(bytes(4096) + b"memory".ljust(4096))
    kept = tmp_path / "snapshots" / "one"
    monitor = Monitor("setup", "active", "completed")
    assert not snapshot.exists(kept)
    snapshot.take(monitor, ram, kept)
    assert snapshot.exists(kept)
    assert monitor.commands[1:3] == ["stop", "migrate"]
    assert monitor.commands[-1] == "cont"
    snapshot.restore_ram(kept, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == ram.read_bytes()
    other = Monitor("completed")
    snapshot.resume(other, kept)
    assert other.commands == ["migrate-set-capabilities", "migrate-incoming", "query-migrate", "cont"]


def test_a_state_that_cannot_be_saved_leaves_nothing_and_the_machine_running(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(4096))
    monitor = Monitor("failed")
    with pytest.raises(UsageError, match="could not save or restore the machine: failed"):
        snapshot.take(monitor, tmp_path / "ram", tmp_path / "snapshots" / "one")
    assert monitor.commands[-1] == "cont"
    assert list((tmp_path / "snapshots").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "same"),
    [({"setup": ("echo",)}, True), ({"vms": 2}, False), ({"cmdline": "nokaslr"}, False), ({"trojan": "a:b"}, False)],
)
def test_only_what_was_booted_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], *, same: bool
) -> None:
    monkeypatch.setattr(snapshot, "_qemu_version", lambda: "7.2")

    def path(host: Host, kernel: Kernel = KERNEL, initrd: str = "i") -> Path:
        return snapshot.snapshot_path(kernel, host, Path(initrd), tmp_path)

    assert (path(msgspec.structs.replace(Host(), **change)) == path(Host())) == same
    assert path(Host(), msgspec.structs.replace(KERNEL, packages={})) != path(Host())
    assert path(Host(), initrd="j") != path(Host())
