"""Puts together what an emulated host runs: busybox, the range's own programs, the kernel's modules."""

import hashlib
import shutil
import subprocess
from importlib import resources
from pathlib import Path

from hypervigil.core.errors import UsageError
from hypervigil.lab.initramfs import Entry, directory, plain, program, write_initramfs
from hypervigil.lab.kernels import Kernel, each_module, module_data, module_name

_DIRECTORIES = ("bin", "dev", "mod", "proc", "run", "sys")
_PROGRAMS = ("agent", "hold", "idle", "nest")
_COMPILE = ("gcc", "-static", "-O2", "-Wall", "-pthread")


def build_initramfs(kernel: Kernel, modules: tuple[str, ...], cache: Path) -> Path:
    """The initial file system for `kernel` with kvm-amd and `modules`, made once and kept in `cache`."""
    entries = [directory(name) for name in _DIRECTORIES]
    entries.append(program("init", _source("init")))
    entries.append(program("bin/busybox", _busybox()))
    entries += [program(f"bin/{name}", _compiled(name, cache)) for name in _PROGRAMS]
    entries += _modules(kernel, modules)
    data = write_initramfs(entries)
    path = cache / f"initramfs-{kernel.release}-{hashlib.sha256(data).hexdigest()[:16]}.gz"
    if not path.exists():
        path.write_bytes(data)
    return path


def _modules(kernel: Kernel, extra: tuple[str, ...]) -> list[Entry]:
    files = list(each_module(kernel, ("kvm-amd", *extra)))
    names = [f"{module_name(path)}.ko" for path in files]
    entries = [plain(f"mod/{name}", module_data(path)) for name, path in zip(names, files, strict=True)]
    return [*entries, plain("mod/order", "".join(f"{name}\n" for name in names).encode())]


def _source(name: str) -> bytes:
    return (resources.files(__package__) / "data" / "guest" / name).read_bytes()


def _busybox() -> bytes:
    path = shutil.which("busybox")
    if path is None:
        raise UsageError("busybox is missing; apt-get install busybox-static")
    return Path(path).read_bytes()


def _compiled(name: str, cache: Path) -> bytes:
    source = _source(f"{name}.c")
    built = cache / f"{name}-{hashlib.sha256(source).hexdigest()[:16]}"
    if not built.exists():
        partial = built.with_suffix(".partial")
        command = [*_COMPILE, "-x", "c", "-o", str(partial), "-"]
        result = subprocess.run(command, input=source, capture_output=True, check=False)  # noqa: S603 - fixed command
        if result.returncode:
            raise UsageError(f"cannot compile {name}.c: {result.stderr.decode(errors='replace')[-400:]}")
        partial.replace(built)
    return built.read_bytes()
