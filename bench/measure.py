"""Running a command, and what it cost: wall time, processor time, peak memory."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

_WRAPPER = """
import json, os, resource, subprocess, sys, time
began = time.monotonic()
code = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
json.dump([code, time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss], open(sys.argv[1], "w"))
"""


class Cost(NamedTuple):
    """What one run cost.

    Attributes:
        status: exit status.
        seconds: wall time.
        processor: user and system time of all its processes.
        peak: peak resident memory of its largest process, MiB.
        output: what it wrote, standard error included.
    """

    status: int
    seconds: float
    processor: float
    peak: float
    output: str


def run(command: list[str], *, timeout: float = 900) -> Cost:
    """Run a command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures"
        done = subprocess.run(
            [sys.executable, "-c", _WRAPPER, str(figures), *command],
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        status, seconds, processor, peak = json.loads(figures.read_text())
    text = (done.stdout + done.stderr).decode(errors="replace")
    return Cost(status, seconds, processor, peak / 1024, text)


def best(command: list[str], times: int) -> Cost:
    """The quickest of several runs: the machine's other work only ever adds."""
    return min((run(command) for _ in range(times)), key=lambda cost: cost.seconds)


def load() -> float:
    """Load average of the last minute, to tell an idle machine from a busy one."""
    return os.getloadavg()[0]
