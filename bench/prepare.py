"""What the benchmark needs beforehand: a clean 512 MiB image from the lab, and Volatility's symbol file for it."""

import json
import lzma
import subprocess
import sys
from pathlib import Path

import msgspec

from bench.isf import make
from hypervigil.lab.apt import Suite
from hypervigil.lab.images import Format, save
from hypervigil.lab.kernels import Kernel, fetch, known
from hypervigil.lab.machine import boot
from hypervigil.lab.scenarios import named
from hypervigil.lab.store import cache_directory
from hypervigil.memory.kernel import open_kernel
from hypervigil.memory.open import open_image

_MIB = 512


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")


def make_image(kernel_name: str, folder: Path) -> tuple[Path, Kernel]:
    """Boot a clean host of 512 MiB and save its memory."""
    cache = cache_directory(None)
    kernel = fetch(kernel_name, cache, _say)
    image = folder / f"{kernel.release}.raw"
    if not image.exists():
        host = msgspec.structs.replace(named("plain").host, memory=_MIB)
        with boot(kernel, host, cache, _say) as machine, machine.frozen():
            save(machine.qmp, machine.place.ram, image.absolute(), Format.RAW)
    return image, kernel


def make_symbols(image: Path, kernel_name: str, kernel: Kernel, folder: Path) -> Path:
    """Volatility's symbol file for the image's kernel, from the vendor's debug package; the folder for ``vol -s``."""
    symbols = folder / "symbols"
    target = symbols / "linux" / f"{kernel.release}.json.xz"
    if target.exists():
        return symbols
    target.parent.mkdir(parents=True, exist_ok=True)
    vmlinux = _debug_vmlinux(kernel_name, kernel, folder)
    opened = open_kernel(open_image(str(image)))
    banner = opened.space.text(opened.symbols.address("linux_banner"), 512).encode() + b"\0"
    _say("making the symbol file")
    with lzma.open(target, "wb", preset=1) as file:
        file.write(json.dumps(make(vmlinux, banner)).encode())
    return symbols


def _debug_vmlinux(kernel_name: str, kernel: Kernel, folder: Path) -> Path:
    path = folder / f"usr/lib/debug/boot/vmlinux-{kernel.release}"
    if path.exists():
        return path
    name = known().get(kernel_name, kernel_name)
    suite = Suite(name, cache_directory(None) / "apt" / name)
    suite.refresh()
    package = f"linux-image-{kernel.release}-dbg"
    _say(f"downloading {package}")
    deb = suite.download(package, suite.show(package)["Version"], folder.absolute())
    unpack = f"dpkg-deb --fsys-tarfile {deb} | tar -x -C {folder.absolute()} ./usr/lib/debug/boot"
    subprocess.run(["bash", "-o", "pipefail", "-c", unpack], check=True)
    deb.unlink()
    return path
