"""Puts together what an emulated host runs: busybox, the range's own programs, the kernel's modules."""

import hashlib
import io
import shutil
import subprocess
from importlib import resources
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from hypervigil.core.errors import UsageError
from hypervigil.lab.encoding import same_meaning
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.initramfs import Entry, directory, plain, program, write_initramfs
from hypervigil.lab.kernels import Kernel, each_module, module_data, module_name
from hypervigil.lab.scenarios import Host

_DIRECTORIES = ("bin", "dev", "mod", "proc", "run", "sys")
_PROGRAMS = ("agent", "bpf", "hold", "idle", "nest", "park")
_SIGNED = b"~Module signature appended~\n"
_SIGNATURE = 12
_COMPILE = ("gcc", "-static", "-O2", "-Wall", "-pthread")


def build_initramfs(kernel: Kernel, host: Host, cache: Path) -> Path:
    """The initial file system for a host, made once and kept in `cache`."""
    entries = [directory(name) for name in _DIRECTORIES]
    entries.append(program("init", _source("init")))
    entries.append(program("bin/busybox", _busybox()))
    entries += [program(f"bin/{name}", _compiled(name, cache)) for name in _PROGRAMS]
    entries += _modules(kernel, host)
    data = write_initramfs(entries)
    path = cache / f"initramfs-{kernel.release}-{hashlib.sha256(data).hexdigest()[:16]}.gz"
    if not path.exists():
        path.write_bytes(data)
    return path


def _modules(kernel: Kernel, host: Host) -> list[Entry]:
    options = {line.split()[0].replace("-", "_"): line.split()[1:] for line in ("kvm-amd", *host.modules)}
    files = list(each_module(kernel, tuple(options)))
    entries, order = [], ""
    for path in files:
        name, data = module_name(path), module_data(path)
        if name == host.trojan.partition(":")[0]:
            data = altered(data, host.trojan.partition(":")[2])
        entries.append(plain(f"mod/{name}.ko", data))
        order += " ".join([f"{name}.ko", *options.get(name, [])]) + "\n"
    entries += [plain(f"mod/{Path(file).name}", Path(file).read_bytes()) for file in host.files]
    return [*entries, plain("mod/order", order.encode())]


def altered(data: bytes, function: str) -> bytes:
    """An unsigned module file in which one instruction of a function has another encoding of the same meaning.

    The kernel takes a module without a signature (and is tainted by it), but not one whose signature is wrong.

    Raises:
        NotApplicable: there is no such function, or no such instruction in it.
    """
    data = unsigned(data)
    elf = ELFFile(io.BytesIO(data))
    symbols = elf.get_section_by_name(".symtab")
    for symbol in (isinstance(symbols, SymbolTableSection) and symbols.get_symbol_by_name(function)) or []:
        start = elf.get_section(symbol["st_shndx"])["sh_offset"] + symbol["st_value"]
        found = same_meaning(data[start : start + symbol["st_size"]], 0)
        if found is not None:
            at = start + found[0]
            return data[:at] + found[1] + data[at + len(found[1]) :]
    raise NotApplicable(f"the module has no function {function} that can be altered")


def unsigned(data: bytes) -> bytes:
    """A module's file without the signature that is appended to it.

    Source: scripts/sign-file.c, `struct module_signature` of 12 bytes, whose last four are the signature's length.
    """
    if not data.endswith(_SIGNED):
        return data
    end = len(data) - len(_SIGNED) - _SIGNATURE
    return data[: max(0, end - int.from_bytes(data[end + 8 : end + 12], "big"))]


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
