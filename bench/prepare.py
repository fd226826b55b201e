"""What the benchmark needs beforehand: clean images from the lab, and Volatility's symbol file for their kernel."""

import json
import lzma
import subprocess
import sys
import time
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

_FILLED = 0.6


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")


def make_kernel(name: str) -> Kernel:
    """Fetch a kernel of the lab."""
    return fetch(name, cache_directory(None), _say)


def make_image(kernel: Kernel, mib: int, folder: Path) -> Path:
    """Boot a clean host of `mib` MiB that fills six tenths of them with random data, and save its memory."""
    image = folder / f"{kernel.release}-{mib}.raw"
    if not image.exists():
        fill = f"head -c {int((mib << 20) * _FILLED)} /dev/urandom > /filler"
        host = msgspec.structs.replace(named("plain").host, memory=mib, setup=(fill,))
        with boot(kernel, host, cache_directory(None), _say) as machine, machine.frozen():
            save(machine.qmp, machine.place.ram, image.absolute(), Format.RAW)
    return image


def make_symbols(image: Path, kernel_name: str, kernel: Kernel, folder: Path) -> tuple[Path, float]:
    """Volatility's symbol file for the image's kernel, from the vendor's debug package.

    Returns:
        The folder for ``vol -s``, and the seconds that making the file took, the package being there and unpacked.
    """
    symbols = folder / "symbols"
    target = symbols / "linux" / f"{kernel.release}.json.xz"
    target.parent.mkdir(parents=True, exist_ok=True)
    vmlinux = _debug_vmlinux(kernel_name, kernel, folder)
    opened = open_kernel(open_image(str(image)))
    banner = opened.space.text(opened.symbols.address("linux_banner"), 512).encode() + b"\0"
    _say("making the symbol file")
    began = time.monotonic()
    with lzma.open(target, "wb", preset=1) as file:
        file.write(json.dumps(make(vmlinux, banner)).encode())
    return symbols, time.monotonic() - began


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
