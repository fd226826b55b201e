"""What the range needs from the machine that it runs on."""

import shutil
from pathlib import Path

from hypervigil.core.errors import UsageError

_PROGRAMS = {
    "apt-get": "apt",
    "busybox": "busybox-static",
    "dpkg-deb": "dpkg",
    "fallocate": "util-linux",
    "gcc": "gcc",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
}
_LIBRARY = Path("/usr/lib/x86_64-linux-gnu/libc.a")
_ELF_INTERPRETER = b"/lib64/ld-linux"
_HEAD = 4096


def check_needs() -> None:
    """Returns when all is there.

    Raises:
        UsageError: packages are missing; names the apt-get line that brings them.
    """
    missing = {package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    if not _LIBRARY.exists():
        missing.add("libc6-dev")
    busybox = shutil.which("busybox")
    if busybox and not _static(Path(busybox)):
        missing.add("busybox-static")
    if missing:
        raise UsageError(f"the range needs more packages: apt-get install {' '.join(sorted(missing))}")


def _static(program: Path) -> bool:
    with program.open("rb") as file:
        return _ELF_INTERPRETER not in file.read(_HEAD)
