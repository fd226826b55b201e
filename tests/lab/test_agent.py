import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.core.units import VirtAddr
from hypervigil.lab.agent import Agent, Output
from hypervigil.lab.memory import GuestMemory


@contextmanager
def agent(tmp_path: Path, *answers: bytes) -> Iterator[tuple[Agent, list[bytes]]]:
    """An agent that answers each line that it gets with the next of `answers`."""
    heard: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "agent"))
    listener.listen(1)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            for answer in answers:
                line = lines.readline()
                if not line:
                    return
                heard.append(line)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    ram = tmp_path / "ram"
    ram.write_bytes(b"".join(bytes([number]) * 4096 for number in range(4)))
    client = Agent(tmp_path / "agent", GuestMemory(ram, tmp_path / "gdb"))
    try:
        yield client, heard
    finally:
        client.close()
        thread.join(10)
        listener.close()


def test_a_short_answer_comes_as_hex(tmp_path: Path) -> None:
    with agent(tmp_path, b"ok 3 5\nhex 68656c\nhex 6c6f\n") as (client, heard):
        assert client.sh("echo hello") == Output(3, b"hello")
    assert heard == [b"sh echo hello\n"]


def test_a_long_answer_is_read_from_guest_memory(tmp_path: Path) -> None:
    with agent(tmp_path, b"ok 0 4100\npages 4098 3,1,\n", b"hex 2121\n") as (client, heard):
        assert client.sh("cat").data == b"\3" * 4096 + b"\1\1!!"
    assert heard[1] == b"next\n"


def test_greetings_in_between_are_passed_over(tmp_path: Path) -> None:
    with agent(tmp_path, b"agent ready\nok 0 8\nhex 0807060504030201\n") as (client, heard):
        assert client.peek_pointer(VirtAddr(0xFFFF_8000_0000_1000)) == 0x0102030405060708
    assert heard == [b"peek ffff800000001000 8\n"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"error peek: Bad address\n", "refuses: peek: Bad address"),
        (b"ok 0 99999999999\n", "more than"),
        (b"ok 0 5\nwhat 1\n", "where data was due"),
        (b"", "has ended"),
    ],
)
def test_strange_answers_are_told(tmp_path: Path, answer: bytes, reason: str) -> None:
    with agent(tmp_path, answer) as (client, _), pytest.raises(UsageError, match=reason):
        client.sh("true", timeout=5)


def test_fewer_bytes_of_memory_than_asked_are_no_answer(tmp_path: Path) -> None:
    with agent(tmp_path, b"ok 0 2\nhex 0102\n") as (client, _), pytest.raises(UsageError, match="2 of 8"):
        client.peek(VirtAddr(1), 8)


def test_a_silent_agent_is_not_waited_for(tmp_path: Path) -> None:
    with agent(tmp_path, b"", b"") as (client, _), pytest.raises(UsageError, match="within"):
        client.ping(timeout=0.05)


def test_a_command_is_one_line(tmp_path: Path) -> None:
    with agent(tmp_path) as (client, _), pytest.raises(UsageError, match="one line"):
        client.sh("a\nb")
