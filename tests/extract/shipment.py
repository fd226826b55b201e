"""A host that runs what a vendor shipped, compared with what is given of it."""

import gzip

from hypervigil.extract.loading import Subject
from hypervigil.extract.vendor import vendor_data, vendor_text
from hypervigil.facts.code import CodeImage, Deviation
from hypervigil.facts.kernel import VendorData, VendorText
from hypervigil.linux.census import Census
from hypervigil.linux.reference import open_reference
from hypervigil.linux.system import System
from hypervigil.memory.reader import Reader
from tests.decode.test_bzimage import bzimage
from tests.decode.test_deb import member
from tests.decode.test_tar import archive
from tests.linux.kernel_builder import KernelImage
from tests.linux.vendor.shipped import ShippedKernel, ShippedModule, running

RELEASE = "6.12.0-0-test"
KERNEL = ShippedKernel()
SAMPLE = ShippedModule("sample")
USER = ShippedModule("user", b"\x77" * 20, calls=("vfs_read", "sample_read"), depends="sample")
GIVEN = (("vmlinux", KERNEL.file()), ("sample.ko", SAMPLE.file()), ("user.ko", USER.file()))
KERNEL_IMAGE = bytes(bzimage(gzip.compress(KERNEL.file())))


def host() -> KernelImage:
    return running(KERNEL, SAMPLE, USER)


def deb(files: dict[str, bytes], *, name: str = "linux-image-test", data: bytes = b"") -> bytes:
    control = f"Package: {name}\nVersion: 6.12-1\n".encode()
    return (
        b"!<arch>\n"
        + member("debian-binary", b"2.0\n")
        + member("control.tar", archive({"./control": control}))
        + member("data.tar", data or archive(files))
    )


def package(kernel: ShippedKernel = KERNEL, *modules: ShippedModule) -> bytes:
    files = {f"./boot/vmlinuz-{RELEASE}": bytes(bzimage(gzip.compress(kernel.file())))}
    for module in modules or (SAMPLE, USER):
        files[f"./lib/modules/{RELEASE}/kernel/{module.name}.ko"] = module.file()
    return deb(files)


def subject(image: KernelImage, given: tuple[tuple[str, bytes], ...], memory: Reader | None = None) -> Subject:
    system = System(image.open(memory))
    return Subject(system, Census(system), tuple(open_reference(name, data) for name, data in given))


def compared(
    image: KernelImage, *given: tuple[str, bytes], memory: Reader | None = None
) -> tuple[VendorText, VendorData]:
    found = subject(image, given, memory)
    text, data = vendor_text(found), vendor_data(found)
    assert isinstance(text, VendorText)
    assert isinstance(data, VendorData)
    return text, data


def deviations(images: tuple[CodeImage, ...]) -> list[Deviation]:
    return [one for image in images for one in image.deviations]
