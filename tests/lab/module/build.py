"""Builds the range's one kernel module with the compiler and the headers of the kernel's own suite.

Debian's headers package brings the compiler that its kernel was built with, so each build has a small system of that
suite to itself. It needs root and the package mmdebstrap.
"""

import os
import shutil
import tempfile
from pathlib import Path

from hypervigil.core.errors import UsageError
from hypervigil.lab.apt import mirrors, sources
from hypervigil.lab.kernels import Kernel, Progress
from hypervigil.lab.programs import run

SOURCE = Path(__file__).with_name("source")


def build(kernel: Kernel, suite: str, cache: Path, progress: Progress) -> Path:
    """The module's file for a kernel, built once.

    Raises:
        UsageError: it cannot be built; the message says why.
    """
    built = cache / "modules" / kernel.release / "lab_livepatch.ko"
    if built.exists() and built.stat().st_mtime > max(file.stat().st_mtime for file in SOURCE.iterdir()):
        return built
    if os.geteuid() != 0:
        raise UsageError("only root can build a module in a system of another suite")
    progress(f"building lab_livepatch for {kernel.release}")
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="chroot-") as directory:
        system = Path(directory) / "system"
        _make_system(system, suite, f"linux-headers-{kernel.release}", Path(directory) / "sources.list")
        shutil.copytree(SOURCE, system / "module")
        make = ["make", "-C", f"/usr/src/linux-headers-{kernel.release}", "M=/module", "modules"]
        alone = ["unshare", "--fork", "--pid", f"--mount-proc={system}/proc"]  # objtool asks /proc for its stack
        run([*alone, "chroot", str(system), *make], f"cannot build the module for {kernel.release}")
        shutil.copy(system / "module" / "lab_livepatch.ko", built)
    return built


def _make_system(system: Path, suite: str, headers: str, list_file: Path) -> None:
    list_file.write_text(sources(suite, mirrors()))
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=apt",
        f"--include={headers},make",
        "--aptopt=Acquire::Languages none",
    ]
    # a machine that uses an archive of the past has said so to its apt
    dated = run(["apt-config", "dump", "Acquire::Check-Valid-Until"], "cannot ask apt for its settings")
    command += [f"--aptopt={line}" for line in dated.splitlines()]
    run([*command, suite, str(system), str(list_file)], f"cannot make a small system of {suite}")
