"""Kernels to boot: fetched as Debian packages or given as files, unpacked, with the modules that a KVM host needs."""

import gzip
import hashlib
import lzma
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import zstandard

from hypervigil.core.errors import UsageError
from hypervigil.lab.apt import Suite, fields
from hypervigil.lab.errors import told
from hypervigil.lab.programs import run

_SUITES = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie", "newest": "sid"}
_PACKAGE = "linux-image-cloud-amd64"
_LARGEST_MODULE = 256 << 20
_RECORD = "kernel.json"

Progress = Callable[[str], None]


class Kernel(msgspec.Struct, frozen=True):
    """An unpacked kernel.

    Attributes:
        release: what `uname -r` says.
        packages: Debian package names to their versions.
        vmlinuz: the image to boot.
        modules: the directory that holds kernel/ and the modules below it.
        debs: the package files that it was unpacked from.
    """

    release: str
    packages: dict[str, str]
    vmlinuz: Path
    modules: Path
    debs: tuple[Path, ...] = ()

    @property
    def version(self) -> tuple[int, int]:
        """The first two numbers of the release."""
        major, minor = self.release.split("-")[0].split("+")[0].split(".")[:2]
        return int(major), int(minor)


def known() -> dict[str, str]:
    """The short names of kernels and the Debian suites that they come from."""
    return dict(_SUITES)


def fetch(name: str, cache: Path, progress: Progress, package: str = _PACKAGE) -> Kernel:
    """The newest kernel of a suite, downloaded once.

    Args:
        name: a short name ("6.1", "newest") or a suite ("bookworm").
        cache: where packages and unpacked kernels are kept.
        progress: is told what is being done.
        package: the kernel's package, or one that depends on it.

    Raises:
        UsageError: the package cannot be had; the message says why.
    """
    with told(cache):
        return _fetch(Suite(_SUITES.get(name, name), cache / "apt" / _SUITES.get(name, name)), cache, progress, package)


def _fetch(suite: Suite, cache: Path, progress: Progress, package: str) -> Kernel:
    progress(f"looking for {package} in {suite.name}")
    suite.refresh()
    parts = suite.kernel_parts(package)
    target = cache / "kernels" / _key(parts)
    if (target / _RECORD).exists():
        return _recorded(target)
    with tempfile.TemporaryDirectory(dir=_made(cache / "kernels")) as directory:
        files = []
        for part, version in sorted(parts.items()):
            progress(f"downloading {part} {version}")
            files.append(suite.download(part, version, Path(directory)))
        return _unpack(files, target, progress)


def from_files(debs: tuple[Path, ...], cache: Path, progress: Progress) -> Kernel:
    """The kernel in package files that the user has.

    Raises:
        UsageError: a file is not a package, or together they hold not exactly one kernel.
    """
    with told(cache):
        target = cache / "kernels" / _key({str(deb.resolve()): str(deb.stat().st_mtime_ns) for deb in debs})
        if (target / _RECORD).exists():
            return _recorded(target)
        return _unpack(list(debs), target, progress)


def _key(parts: dict[str, str]) -> str:
    return hashlib.sha256(msgspec.json.encode(sorted(parts.items()))).hexdigest()[:16]


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _recorded(target: Path) -> Kernel:
    packages = msgspec.json.decode((target / _RECORD).read_bytes(), type=dict[str, str])
    return unpacked(target / "root", packages)


def _unpack(debs: list[Path], target: Path, progress: Progress) -> Kernel:
    packages: dict[str, str] = {}
    partial = Path(tempfile.mkdtemp(dir=_made(target.parent)))
    try:
        for deb in debs:
            progress(f"unpacking {deb.name}")
            told = fields(run(["dpkg-deb", "--field", str(deb), "Package", "Version"], f"{deb}: not a Debian package"))
            packages[told["Package"]] = told["Version"]
            run(["dpkg-deb", "--extract", str(deb), str(partial / "root")], f"{deb}: cannot unpack")
            shutil.copy2(deb, _made(partial / "debs") / deb.name)
        unpacked(partial / "root", packages)
        (partial / _RECORD).write_bytes(msgspec.json.encode(packages))
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _recorded(target)


def unpacked(root: Path, packages: dict[str, str]) -> Kernel:
    """The kernel below `root`, a directory into which kernel packages were unpacked.

    Debian keeps the image in /boot, since 7.x in the directory of the modules.

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
            return Kernel(release, packages, image, modules, tuple(sorted((root.parent / "debs").glob("*.deb"))))
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


def each_module(kernel: Kernel, wanted: tuple[str, ...]) -> Iterator[Path]:
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
