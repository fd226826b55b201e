import gzip
import lzma
import subprocess
from pathlib import Path

import pytest
import zstandard

from hypervigil.core.errors import UsageError
from hypervigil.lab.kernels import Kernel, each_module, fetch, from_files, known, module_data, module_name, unpacked

RELEASE = "6.1.0-9-amd64"


def lay_out(root: Path, *, image: str = f"boot/vmlinuz-{RELEASE}", modules: str = f"lib/modules/{RELEASE}") -> Path:
    (root / modules / "kernel").mkdir(parents=True)
    (root / image).parent.mkdir(parents=True, exist_ok=True)
    (root / image).write_bytes(b"image")
    return root


@pytest.mark.parametrize(
    ("image", "modules"),
    [
        (f"boot/vmlinuz-{RELEASE}", f"lib/modules/{RELEASE}"),
        (f"boot/vmlinuz-{RELEASE}", f"usr/lib/modules/{RELEASE}"),
        (f"usr/lib/modules/{RELEASE}/vmlinuz", f"usr/lib/modules/{RELEASE}"),
    ],
)
def test_the_image_is_found_where_debian_puts_it(tmp_path: Path, image: str, modules: str) -> None:
    kernel = unpacked(lay_out(tmp_path, image=image, modules=modules), {})
    assert (kernel.release, kernel.vmlinuz, kernel.modules) == (RELEASE, tmp_path / image, tmp_path / modules)
    assert kernel.version == (6, 1)


def test_half_a_kernel_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected one kernel, found modules of 0"):
        unpacked(tmp_path, {})
    root = lay_out(tmp_path)
    (root / f"boot/vmlinuz-{RELEASE}").unlink()
    with pytest.raises(UsageError, match="no boot image"):
        unpacked(root, {})


@pytest.mark.parametrize("release", ["7.2.13+deb14-cloud-amd64", "7.2-rc1-amd64", "7.2+x-amd64"])
def test_versions_are_read_from_any_release(release: str) -> None:
    assert Kernel(release, {}, Path(), Path()).version == (7, 2)


def test_compressed_modules_are_read(tmp_path: Path) -> None:
    for name, data in [
        ("a.ko", b"elf"),
        ("a.ko.gz", gzip.compress(b"elf")),
        ("a.ko.xz", lzma.compress(b"elf")),
        ("a.ko.zst", zstandard.ZstdCompressor().compress(b"elf")),
    ]:
        (tmp_path / name).write_bytes(data)
        assert module_data(tmp_path / name) == b"elf"
        assert module_name(tmp_path / name) == "a"


def module(depends: str) -> bytes:
    return b"\x7fELF license=GPL\0depends=" + depends.encode() + b"\0name=x\0"


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    kernel = unpacked(lay_out(tmp_path), {})
    for name, needs in [("kvm-amd", "kvm,ccp"), ("kvm", "irqbypass"), ("ccp", ""), ("irqbypass", ""), ("odd", "odd")]:
        (kernel.modules / "kernel" / f"{name}.ko").write_bytes(module(needs))
    names = [module_name(path) for path in each_module(kernel, ("kvm-amd", "kvm", "odd"))]
    assert names == ["irqbypass", "kvm", "ccp", "kvm_amd", "odd"]
    with pytest.raises(UsageError, match="no module none"):
        list(each_module(kernel, ("none",)))


def deb(tmp_path: Path, package: str) -> Path:
    root = lay_out(tmp_path / package)
    (root / "DEBIAN").mkdir()
    control = f"Package: {package}\nVersion: 6.1-1\nArchitecture: amd64\nMaintainer: x <x@x>\nDescription: x\n"
    (root / "DEBIAN" / "control").write_text(control)
    target = tmp_path / f"{package}_6.1-1_amd64.deb"
    subprocess.run(["dpkg-deb", "--build", str(root), str(target)], check=True, capture_output=True)
    return target


def test_a_package_file_is_unpacked_once(tmp_path: Path) -> None:
    file = deb(tmp_path, f"linux-image-{RELEASE}")
    said: list[str] = []
    kernel = from_files((file,), tmp_path / "cache", said.append)
    assert kernel.packages == {f"linux-image-{RELEASE}": "6.1-1"}
    assert kernel.vmlinuz.read_bytes() == b"image"
    assert from_files((file,), tmp_path / "cache", said.append) == kernel
    assert len(said) == 1


def test_what_is_no_package_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "x.deb"
    file.write_bytes(b"nothing")
    with pytest.raises(UsageError, match="not a Debian package"):
        from_files((file,), tmp_path / "cache", print)
    assert list((tmp_path / "cache/kernels").iterdir()) == []


def test_a_suite_is_asked_and_its_kernel_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = f"linux-image-{RELEASE}"
    file = deb(tmp_path, package)
    downloads: list[str] = []

    def download(suite: object, name: str, version: str, directory: Path) -> Path:  # noqa: ARG001 - Suite's signature
        downloads.append(f"{name}={version}")
        return file

    monkeypatch.setattr("hypervigil.lab.apt.Suite.refresh", lambda suite: None)  # noqa: ARG005 - same
    monkeypatch.setattr("hypervigil.lab.apt.Suite.kernel_parts", lambda suite, name: {package: "6.1-1"})  # noqa: ARG005 - same
    monkeypatch.setattr("hypervigil.lab.apt.Suite.download", download)
    said: list[str] = []
    kernel = fetch("6.1", tmp_path / "cache", said.append)
    assert fetch("6.1", tmp_path / "cache", said.append) == kernel
    assert downloads == [f"{package}=6.1-1"]
    assert said[0].endswith(f"in {known()['6.1']}")
