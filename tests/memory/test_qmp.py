import os
import socket
from pathlib import Path

import pytest

from hypervigil.core.errors import DecodeError, ProgramError, UsageError
from hypervigil.memory import qmp
from hypervigil.memory.qmp import QmpMonitor
from tests.memory.fake_qmp import GREETING, Script, qmp_server


def test_questions_are_asked_and_events_skipped(tmp_path: Path) -> None:
    script = Script({"query-status": {"status": "running"}, "info mtree -f": "FlatView #0\r\n"})
    with qmp_server(tmp_path / "qmp", script):
        monitor = QmpMonitor(str(tmp_path / "qmp"))
        assert monitor.peer == os.getpid()
        assert monitor.status() == "running"
        assert monitor.ask("info mtree -f") == "FlatView #0\r\n"
        monitor.close()
    assert script.asked == ["qmp_capabilities", "query-status", "info mtree -f"]


@pytest.mark.parametrize(
    "line", ["stop", "info mtree -f; stop", "gpa2hva 0x0\nstop", "system_reset", "gpa2hva zero", ""]
)
def test_what_could_change_the_machine_is_never_sent(tmp_path: Path, line: str) -> None:
    script = Script({})
    with qmp_server(tmp_path / "qmp", script):
        monitor = QmpMonitor(str(tmp_path / "qmp"))
        with pytest.raises(ProgramError):
            monitor.ask(line)
        with pytest.raises(ProgramError):
            monitor._execute("stop")
        monitor.close()
    assert script.asked == ["qmp_capabilities"]


@pytest.mark.parametrize(
    ("greeting", "error", "reason"),
    [
        ("hello", DecodeError, "no JSON"),
        ("[1]", DecodeError, "not an object"),
        ('{"event": "x"}', UsageError, "no QMP monitor"),
    ],
)
def test_what_is_no_monitor_is_told(tmp_path: Path, greeting: str, error: type[Exception], reason: str) -> None:
    with qmp_server(tmp_path / "qmp", Script({}), greeting), pytest.raises(error, match=reason):
        QmpMonitor(str(tmp_path / "qmp"))


@pytest.mark.parametrize(
    ("answer", "error"), [({"error": {"class": "GenericError"}}, UsageError), (7, DecodeError), (None, DecodeError)]
)
def test_errors_and_strange_answers_are_told(tmp_path: Path, answer: object, error: type[Exception]) -> None:
    with qmp_server(tmp_path / "qmp", Script({"query-status": answer, "info mtree -f": answer})):
        monitor = QmpMonitor(str(tmp_path / "qmp"))
        with pytest.raises(error):
            monitor.status()
        with pytest.raises(error):
            monitor.ask("info mtree -f")
        monitor.close()


def test_no_socket_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        QmpMonitor(str(tmp_path / "nowhere"))


def test_a_monitor_that_another_client_holds_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qmp, "TIMEOUT", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "qmp"))
        listener.listen(1)
        with pytest.raises(UsageError, match="another client such as libvirt may hold the monitor"):
            QmpMonitor(str(tmp_path / "qmp"))


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qmp, "MAX_LINE", 1000)
    with qmp_server(tmp_path / "qmp", Script({}), "x" * 200_000), pytest.raises(DecodeError, match="more than 1000"):
        QmpMonitor(str(tmp_path / "qmp"))


def test_the_greeting_of_the_tests_is_one(tmp_path: Path) -> None:
    with qmp_server(tmp_path / "qmp", Script({}), GREETING):
        QmpMonitor(str(tmp_path / "qmp")).close()
