import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.lab.qmp import Qmp


@contextmanager
def qemu(path: Path, *answers: object) -> Iterator[list[dict[str, object]]]:
    heard: list[dict[str, object]] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as file:
            file.write(b'{"QMP": {}}\n')
            file.flush()
            for answer in ({"return": {}}, *answers):
                heard.append(json.loads(file.readline()))
                file.write(b'{"event": "STOP"}\n' + json.dumps(answer).encode() + b"\n")
                file.flush()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        thread.join(10)
        listener.close()


def test_commands_are_answered_past_events(tmp_path: Path) -> None:
    with qemu(tmp_path / "qmp", {"return": {"running": True}}) as heard, Qmp(tmp_path / "qmp") as qmp:
        assert qmp.execute("query-status", detail=1) == {"running": True}
    assert heard[1] == {"execute": "query-status", "arguments": {"detail": 1}}


def test_a_refusal_is_told(tmp_path: Path) -> None:
    with (
        qemu(tmp_path / "qmp", {"error": {"desc": "No space left"}}),
        Qmp(tmp_path / "qmp") as qmp,
        pytest.raises(UsageError, match="refuses dump-guest-memory: No space left"),
    ):
        qmp.execute("dump-guest-memory")


def test_the_end_of_qemu_is_told(tmp_path: Path) -> None:
    with (
        qemu(tmp_path / "qmp"),
        Qmp(tmp_path / "qmp") as qmp,
        pytest.raises(UsageError, match=r"has ended|does not answer"),
    ):
        qmp.execute("query-status")
    with pytest.raises(UsageError, match="cannot reach QEMU"):
        Qmp(tmp_path / "none")
