"""What files from outside give: types and symbols where the image has none, and what they say beside it."""

import gzip
import hashlib

import pytest

from hypervigil.core.errors import DecodeError, EvidenceError, MissingDescription, UnsupportedEvidence
from hypervigil.core.facts import Gap
from hypervigil.linux.identity import Said
from hypervigil.linux.reference import Reference, adopt, each_reference_said, open_reference
from hypervigil.linux.system import System
from hypervigil.memory.kernel import Kernel
from tests.decode.btf_encoder import Encoder
from tests.decode.test_bzimage import bzimage
from tests.linux.kernel_builder import TEXT, KernelImage
from tests.linux.vendor import elf_builder as elf
from tests.linux.vendor.shipped import OFFSET, ShippedKernel, running

KERNEL = ShippedKernel()
OTHER = ShippedKernel(b"\xab" * 20)


def vmlinux(image: KernelImage, kernel: ShippedKernel = KERNEL, *, symbols: bool = True, types: bool = True) -> bytes:
    """A kernel's file with the symbols and types that the image has."""
    made = kernel.elf()
    per_cpu = made.section(".data..percpu", bytes(64), elf.ALLOC | elf.WRITE)
    if types:
        made.section(".BTF", image.types.btf)
    for name, (address, letter) in image.symbols.items() if symbols else ():
        if address >= TEXT - OFFSET:
            kind = elf.FUNCTION if letter in "tT" else elf.OBJECT
            made.symbol(name, 1, address - OFFSET, kind=kind, binding=elf.GLOBAL if letter.isupper() else elf.LOCAL)
    if symbols:
        made.symbol("runqueues", per_cpu, 0x20, kind=elf.OBJECT)
        made.symbol("fixed", elf.ABSOLUTE, TEXT)
        made.symbol("asm_label", 1, KERNEL.LABEL - OFFSET + 1, kind=elf.NOTYPE)
    return made.data() + kernel.lists()


def given(name: str, data: bytes) -> Reference:
    return open_reference(name, data)


def without(image: KernelImage, *what: str) -> Kernel:
    """The kernel of an image that lost its symbols or its types; VMCOREINFO tells how far it was moved."""
    for one in what:
        if one == "types":
            start, stop = image.symbols["__start_BTF"][0], image.symbols["__stop_BTF"][0]
            image.poke_image(start, bytes(stop - start))
        else:
            image.wipe(image.at["kallsyms_names"], 0x400)
            image.wipe(image.at["kallsyms_token_table"], 0x100)
    frame = image.at["vmcoreinfo"]
    text = (
        bytes(image.data[frame : frame + 0x1000])
        .rstrip(b"\0")
        .replace(b"KERNELOFFSET=0", f"KERNELOFFSET={OFFSET:x}".encode())
    )
    image.data[frame : frame + len(text)] = text
    return image.open()


def test_a_reference_is_cited_by_its_name_size_and_digest() -> None:
    data = KERNEL.file()
    evidence = given("vmlinux", data).evidence
    assert (evidence.id, evidence.kind, evidence.size) == ("vmlinux", "kernel/vmlinux", len(data))
    assert evidence.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize(
    ("data", "error"), [(b"", UnsupportedEvidence), (b"MZ", UnsupportedEvidence), (b"\x7fELF", DecodeError)]
)
def test_what_is_no_file_of_a_kernel_is_refused(data: bytes, error: type[EvidenceError]) -> None:
    with pytest.raises(error):
        given("x", data)


def test_the_kernel_inside_of_a_vmlinuz_is_its_file() -> None:
    image = running(KERNEL)
    packed = given("vmlinuz", bytes(bzimage(gzip.compress(vmlinux(image)))))
    assert packed.kernel_file is not None
    assert packed.types_digest() == given("vmlinux", vmlinux(image)).types_digest() != ""
    assert given("types", image.types.btf).types_digest() == packed.types_digest()
    assert given("vmlinux", KERNEL.file()).types_digest() == ""


def test_symbols_are_taken_where_the_image_has_none() -> None:
    image = running(KERNEL)
    kernel = without(image, "symbols")
    with pytest.raises(MissingDescription):
        kernel.symbols  # noqa: B018 - asks whether there are any
    adopt(kernel, (given("types", image.types.btf), given("vmlinux", vmlinux(image))))
    symbols = kernel.symbols
    assert symbols.source == "symbols of vmlinux"
    assert symbols.address("vfs_read") == KERNEL.READ
    assert symbols.address("runqueues") == 0x20
    assert "fixed" not in symbols
    found = {
        name: symbols.types[symbols.names.index(name)] for name in ("vfs_read", "labelled", "asm_label", "runqueues")
    }
    assert found == {"vfs_read": "T", "labelled": "t", "asm_label": "T", "runqueues": "D"}


@pytest.mark.parametrize("alone", [True, False])
def test_types_are_taken_where_the_image_has_none(alone: bool) -> None:  # noqa: FBT001 - a case
    image = running(KERNEL)
    reference = given("types", image.types.btf) if alone else given("vmlinux", vmlinux(image))
    kernel = without(image, "types")
    with pytest.raises(MissingDescription):
        kernel.type("struct module")
    adopt(kernel, (reference,))
    assert kernel.type("struct module").size == image.types.size("module")


def test_what_the_image_has_stays() -> None:
    image = running(KERNEL)
    kernel = image.open()
    before = kernel.symbols, kernel.btf
    adopt(kernel, (given("types", image.types.btf), given("vmlinux", vmlinux(image))))
    assert (kernel.symbols, kernel.btf) == before


def test_nothing_of_another_build_is_taken_and_the_reason_is_told() -> None:
    image = running(KERNEL)
    kernel = without(image, "symbols", "types")
    adopt(kernel, (given("other", vmlinux(image, OTHER)),))
    with pytest.raises(MissingDescription, match="other has none of this build"):
        kernel.symbols  # noqa: B018 - asks whether there are any
    with pytest.raises(MissingDescription, match="other has none of this build"):
        kernel.btf  # noqa: B018 - asks whether there are any


def test_types_of_another_size_are_of_another_kernel() -> None:
    image = running(KERNEL)
    kernel = without(image, "types")
    adopt(kernel, (given("foreign", foreign_types()),))
    with pytest.raises(MissingDescription, match="foreign has none of this build"):
        kernel.btf  # noqa: B018 - asks whether there are any


def test_a_file_without_symbols_or_damaged_gives_none() -> None:
    image = running(KERNEL)
    kernel = without(image, "symbols")
    damaged = bytearray(vmlinux(image))
    damaged[0x28:0x30] = b"\xff" * 8
    with pytest.raises(DecodeError):
        given("damaged", bytes(damaged))
    adopt(kernel, (given("bare", vmlinux(image, symbols=False)),))
    with pytest.raises(MissingDescription):
        kernel.symbols  # noqa: B018 - asks whether there are any


def test_a_kernel_without_a_build_id_is_known_by_its_notes() -> None:
    image = running(KERNEL)
    kernel = without(image, "symbols")
    frame = image.at["vmcoreinfo"]
    image.data[frame : frame + 0x400] = bytes(image.data[frame : frame + 0x400]).replace(b"BUILD-ID", b"NO-ID-AT")
    kernel = image.open()
    adopt(kernel, (given("other", vmlinux(image, OTHER)), given("vmlinux", vmlinux(image))))
    assert kernel.symbols.source == "symbols of vmlinux"


def foreign_types() -> bytes:
    encoder = Encoder()
    encoder.add("int", 1, 4, 32)
    return encoder.data()


def said(image: KernelImage, *references: Reference) -> list[Said | Gap]:
    return list(each_reference_said(System(image.open()), references))


def contradictions(found: list[Said | Gap]) -> dict[str, set[str]]:
    values: dict[str, set[str]] = {}
    for one in found:
        if isinstance(one, Said):
            values.setdefault(one.subject, set()).add(one.value)
    return {subject: both for subject, both in values.items() if len(both) > 1}


def test_a_kernel_and_its_own_file_agree() -> None:
    image = running(KERNEL)
    found = said(image, given("vmlinux", vmlinux(image)), given("types", image.types.btf))
    assert contradictions(found) == {}
    subjects = {one.subject for one in found if isinstance(one, Said)}
    assert "BTF" in subjects
    assert any(subject.endswith("symbols") for subject in subjects)
    assert [one for one in found if isinstance(one, Gap)] == []


def test_a_symbol_that_is_elsewhere_is_named() -> None:
    image = running(KERNEL)
    file = vmlinux(image)
    image.symbols["vfs_read"] = (KERNEL.READ + 0x10, "T")
    image.put_tables()
    found = contradictions(said(image, given("vmlinux", file)))
    assert found.pop("address of vfs_read") == {f"{KERNEL.READ:#x}", f"{KERNEL.READ + 0x10:#x}"}
    assert len(found) == 1  # that of all symbols together


def test_a_name_that_either_has_twice_is_not_compared() -> None:
    image = running(KERNEL)
    file = vmlinux(image)
    for name in ("vfs_read", "vfs_write"):
        image.symbols[name] = (image.symbols[name][0] + 0x10, "T")
    image.put_tables()
    twice = KERNEL.elf()
    for name in ("vfs_read", "vfs_read", "vfs_write"):
        twice.symbol(name, 1, image.symbols[name][0] - 0x10 - OFFSET)
    assert "address of vfs_read" in contradictions(said(image, given("vmlinux", file)))
    found = contradictions(said(image, given("vmlinux", twice.data())))
    assert sorted(found) == ["address of vfs_write", "addresses of 1 symbols"]


def test_types_that_differ_are_named() -> None:
    image = running(KERNEL)
    changed = bytearray(image.types.btf)
    changed[-2] ^= 1
    assert list(contradictions(said(image, given("types", bytes(changed))))) == ["BTF"]


def test_types_of_another_size_leave_it_open() -> None:
    found = said(running(KERNEL), given("foreign", foreign_types()))
    assert [(gap.what, "another one" in gap.why) for gap in found if isinstance(gap, Gap)] == [("foreign", True)]
    assert contradictions(found) == {}


def test_a_file_of_another_build_says_nothing() -> None:
    image = running(KERNEL)
    assert said(image, given("other", vmlinux(image, OTHER))) == []


def test_what_the_image_lost_is_a_gap_and_symbols_are_not_compared_with_themselves() -> None:
    image = running(KERNEL)
    reference = given("vmlinux", vmlinux(image))
    kernel = without(image, "symbols", "types")
    adopt(kernel, (reference,))
    found = list(each_reference_said(System(kernel), (reference,)))
    assert [gap.what for gap in found if isinstance(gap, Gap)] == ["BTF in the image, to compare with vmlinux"]
    assert [one for one in found if isinstance(one, Said)] == []
