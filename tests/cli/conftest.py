"""The command line as users call it, and hosts and reports to call it with."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from hypervigil.cli.main import main
from hypervigil.report.json import render
from tests.extract.tamperings import operation
from tests.linux.host_builder import host
from tests.report import reports

PROGRAM = str(Path(sys.executable).with_name("hypervigil"))


class Ran(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call the command line in this process, as from a pipe of a shell without settings of its own."""
    for name in ("COLUMNS", "NO_COLOR", "HYPERVIGIL_DEBUG", "HYPERVIGIL_LAB"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str | Path) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsysbinary.readouterr()
        assert isinstance(ended.value.code, int)
        return Ran(ended.value.code, out.decode(), err.decode())

    return call


@pytest.fixture
def shell(tmp_path: Path) -> Run:
    """Call the installed program in a shell; ``hypervigil`` stands for it."""

    def call(line: str) -> Ran:
        done = subprocess.run(
            ["bash", "-c", f'set -o pipefail; hypervigil() {{ "{PROGRAM}" "$@"; }}; {line}'],
            cwd=tmp_path,
            env={key: value for key, value in os.environ.items() if key not in {"COLUMNS", "NO_COLOR"}},
            capture_output=True,
            text=True,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host that was not altered; of its one kind of text that is checked it has nothing, so it is not cleared."""
    path = tmp_path_factory.mktemp("sound") / "sound.raw"
    path.write_bytes(host().data)
    return path


@pytest.fixture(scope="session")
def altered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host whose KVM has one operation diverted."""
    image = host()
    operation(image)
    path = tmp_path_factory.mktemp("altered") / "altered.raw"
    path.write_bytes(image.data)
    return path


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of reports as JSON, by what they say: ``clean``, ``violated``, ``undecided``, ``huge``."""
    folder = tmp_path_factory.mktemp("saved")
    for make in (reports.clean, reports.violated, reports.undecided, reports.huge, reports.hostile):
        (folder / f"{make.__name__}.json").write_text(render(make()), encoding="utf-8")
    return folder
