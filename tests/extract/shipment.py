"""A host that runs what a vendor shipped, compared with what is given of it."""

import gzip

import pytest

from hypervigil.core.errors import EvidenceError
from hypervigil.extract.loading import Subject, extract
from hypervigil.extract.vendor import vendor_data, vendor_text
from hypervigil.facts.code import CodeImage, Deviation
from hypervigil.facts.kernel import VendorData, VendorText
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.images import Format
from hypervigil.lab.kernels import Kernel
from hypervigil.linux.census import Census
from hypervigil.linux.reference import open_reference
from hypervigil.linux.system import System
from hypervigil.memory.kernel import open_kernel
from hypervigil.memory.open import open_image
from hypervigil.memory.reader import Reader
from tests.conftest import Produce
from tests.decode.test_bzimage import bzimage
from tests.decode.test_deb import member
from tests.decode.test_tar import archive
from tests.linux.kernel_builder import TEXT, KernelImage
from tests.linux.vendor.shipped import PLAIN_RETURN, ShippedKernel, ShippedModule, jump, running

RELEASE = "6.12.0-0-test"
KERNEL = ShippedKernel()
SAMPLE = ShippedModule("sample")
USER = ShippedModule("user", b"\x77" * 20, calls=("vfs_read", "sample_read"), depends="sample")
GIVEN = (("vmlinux", KERNEL.file()), ("sample.ko", SAMPLE.file()), ("user.ko", USER.file()))
KERNEL_IMAGE = bytes(bzimage(gzip.compress(KERNEL.file())))

FOREIGN = TEXT + 0x300

LAWFUL = {
    "return": (KERNEL.RETURN, PLAIN_RETURN),
    "lock prefix": (KERNEL.LOCK, b"\x3e"),
    "alternative": (KERNEL.ALTERNATIVE, b"\x0f\x01\xcb\x66\x90"),
    "alternative, padded otherwise": (KERNEL.ALTERNATIVE, b"\x0f\x01\xcb\x90\x90"),
}
"""What the kernel may write into its own text: where, and what."""

CHANGED: dict[str, tuple[int, bytes, str, int, bytes]] = {
    "text": (KERNEL.WRITE + 0x1C, b"\xc2", "text", KERNEL.WRITE + 0x1C, b"\xc3"),
    "moved number": (KERNEL.WRITE + 12, b"\x99", "text", KERNEL.WRITE + 12, b"\x81"),
    "return": (
        KERNEL.RETURN,
        jump(KERNEL.RETURN, FOREIGN),
        "return site",
        KERNEL.RETURN,
        jump(KERNEL.RETURN, KERNEL.THUNK),
    ),
    "alternative": (
        KERNEL.ALTERNATIVE,
        b"\x48\x31\xc0\x66\x90",
        "alternative",
        KERNEL.ALTERNATIVE,
        b"\x0f\x1f\x44\0\0",
    ),
    "lock prefix": (KERNEL.LOCK, b"\x90", "lock prefix", KERNEL.LOCK, b"\xf0"),
    "padding": (TEXT + 0x3F0, b"\xeb\xfe", "text", TEXT + 0x3F0, b"\xcc\xcc"),
}
"""Changes: where and what, and the deviation that each is: its kind, its place, and what was built there."""


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


def refusals(image: KernelImage, *files: tuple[str, bytes]) -> str:
    found = subject(image, files)
    with pytest.raises(EvidenceError) as text:
        vendor_text(found)
    with pytest.raises(EvidenceError) as data:
        vendor_data(found)
    assert str(text.value) == str(data.value)
    return str(text.value)


def listed(image: KernelImage, module: str, section: str) -> tuple[int, str]:
    """Address of an entry of a module's list of sections, and its path."""
    attributes = image.at[f"sections of {module}"]
    place = image.at[f"{module} {section}"]
    for index in range(16):
        path = f"attrs[{index}].address"
        if image.word(attributes + image.types.offset("module_sect_attrs", path)) == place:
            return attributes, path
    raise AssertionError(section)


def packaged(lab_image: Produce, kernel: Kernel, name: str, scenario: str) -> tuple[VendorText, VendorData]:
    """The facts about an image of the range, with the packages that its kernel came from."""
    assert kernel.debs
    try:
        made = lab_image(name, scenario)
    except NotApplicable as reason:
        pytest.skip(str(reason))
    system = System(open_kernel(open_image(str(made.images[Format.RAW]))))
    references = tuple(open_reference(deb.name, deb.read_bytes()) for deb in kernel.debs)
    found = Subject(system, Census(system), references)
    text, data = extract(vendor_text, found), extract(vendor_data, found)
    assert isinstance(text, VendorText)
    assert isinstance(data, VendorData)
    return text, data
