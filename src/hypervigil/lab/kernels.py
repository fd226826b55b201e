"""Kernels to boot: what was unpacked from Debian's packages, and the modules that a KVM host needs."""

import gzip
import lzma
from collections.abc import Iterator
from pathlib import Path

import msgspec
import zstandard

from hypervigil.core.errors import UsageError

_KVM = ("kvm-amd",)
_LARGEST_MODULE = 256 << 20


class Kernel(msgspec.Struct, frozen=True):
    """An unpacked kernel.

    Attributes:
        release: what `uname -r` says.
        packages: Debian package names to their versions.
        vmlinuz: the image to boot.
        modules: the directory that holds modules.order and kernel/.
    """

    release: str
    packages: dict[str, str]
    vmlinuz: Path
    modules: Path


def unpacked(root: Path, packages: dict[str, str]) -> Kernel:
    """The kernel below `root`, a directory into which kernel packages were unpacked.

    Debian keeps the image in /boot, since 2026 in the directory of the modules.

    Raises:
        UsageError: there is not exactly one set of modules, or no image.
    """
    found = [p.parent for p in (*root.glob("lib/modules/*/kernel"), *root.glob("usr/lib/modules/*/kernel"))]
    if len(found) != 1:
        raise UsageError(f"{root}: expected one kernel, found modules of {len(found)}")
    modules = found[0]
    release = modules.name
    for image in (root / f"boot/vmlinuz-{release}", modules / "vmlinuz"):
        if image.is_file():
            return Kernel(release, packages, image, modules)
    raise UsageError(f"{root}: the packages hold no boot image of {release}")


def module_data(path: Path) -> bytes:
    """A module's ELF file, decompressed by the ending of its name (.ko, .ko.gz, .ko.xz, .ko.zst)."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=_LARGEST_MODULE)
    return data


def module_name(path: Path) -> str:
    """A module's name as the kernel knows it: no ending, "-" as "_"."""
    return path.name.split(".ko")[0].replace("-", "_")


def each_module(kernel: Kernel, wanted: tuple[str, ...] = _KVM) -> Iterator[Path]:
    """The files of `wanted` modules and all that they depend on, in the order to load them.

    A module's needs are read from its own .modinfo section ("depends="), so that no depmod run is needed.

    Raises:
        UsageError: the kernel has no such module.
    """
    files = {module_name(path): path for path in kernel.modules.rglob("*.ko*")}
    done: set[str] = set()
    for name in wanted:
        yield from _with_needs(name.replace("-", "_"), files, done, kernel.release)


def _with_needs(name: str, files: dict[str, Path], done: set[str], release: str) -> Iterator[Path]:
    if name in done:
        return
    done.add(name)
    if name not in files:
        raise UsageError(f"kernel {release} has no module {name}")
    for need in _depends(module_data(files[name])):
        yield from _with_needs(need, files, done, release)
    yield files[name]


def _depends(data: bytes) -> list[str]:
    at = data.find(b"\0depends=")
    if at < 0:
        return []
    text = data[at + 9 : data.index(b"\0", at + 9)].decode("ascii", "replace")
    return [word.replace("-", "_") for word in text.split(",") if word]
