"""A QMP monitor on a socket of this process, with answers that a test chooses."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

GREETING = '{"QMP": {"version": {}, "capabilities": []}}'
TREE = """FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan

FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
"""
REGISTERS = """
CPU#0
CR0=80050033 CR2=0000000000000000 CR3=0000000000abc000 CR4=003506f0
"""


def line(start: int, end: int, kind: str, name: str, offset: int = 0) -> str:
    """A line of the tree; `end` is exclusive, QEMU prints the last address."""
    place = f" @{offset:016x}" if offset else ""
    return f"  {start:016x}-{end - 1:016x} (prio 0, {kind}): {name}{place}\n"


class Script:
    """Answers by question; a list is used up from the front, its last entry stays."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def reply(self, request: dict[str, Any]) -> str:
        question = request.get("arguments", {}).get("command-line") or request["execute"]
        self.asked.append(question)
        if question == "qmp_capabilities":
            return json.dumps({"return": {}})
        answer = self.answers.get(question)
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        event = json.dumps({"event": "RTC_CHANGE", "data": {}})
        body = answer if isinstance(answer, dict) and "error" in answer else {"return": answer}
        return event + "\r\n" + json.dumps(body)


@contextmanager
def qmp_server(path: Path, script: Script, greeting: str = GREETING) -> Iterator[None]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError), connection, connection.makefile("rw", encoding="utf-8") as stream:
                stream.write(greeting + "\r\n")
                stream.flush()
                for request in stream:
                    stream.write(script.reply(json.loads(request)) + "\r\n")
                    stream.flush()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
