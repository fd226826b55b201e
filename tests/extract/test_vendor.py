"""Text and read-only data against files that a vendor shipped: memory that was made from these very files."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervigil.core.errors import EvidenceError, MissingMemory
from hypervigil.core.facts import Absent, Gap, Unknown
from hypervigil.extract.loading import Subject, extract
from hypervigil.extract.vendor import vendor_data, vendor_text
from hypervigil.facts.kernel import VendorData, VendorText
from hypervigil.lab.kernels import Kernel
from hypervigil.linux.census import Census
from hypervigil.linux.reference import open_reference
from hypervigil.linux.system import System
from hypervigil.linux.text.code import Code
from hypervigil.linux.text.registry import Registry
from hypervigil.linux.vendor.comparison import Compared, compare_text
from hypervigil.linux.vendor.files import Source
from hypervigil.linux.vendor.matching import Failure, Match, Mismatch, each_match
from tests.conftest import Produce
from tests.decode.test_tar import archive
from tests.extract.shipment import (
    CHANGED,
    GIVEN,
    KERNEL,
    KERNEL_IMAGE,
    LAWFUL,
    RELEASE,
    SAMPLE,
    USER,
    compared,
    deb,
    deviations,
    host,
    listed,
    package,
    packaged,
    refusals,
    subject,
)
from tests.linux.kernel_builder import BUILD_ID, TEXT
from tests.linux.vendor.shipped import ShippedKernel, ShippedModule, running


@pytest.mark.parametrize(
    "files",
    [
        GIVEN,
        (("linux.deb", package()),),
        (("vmlinuz", KERNEL_IMAGE), *GIVEN[1:]),
        (("binary.deb", package()), ("modules.deb", deb({"./x.ko": b""}))),
        (("vmlinux", KERNEL.file(inverse=True, symbols=True)), *GIVEN[1:]),
    ],
    ids=["files", "package", "vmlinuz", "packages", "symbols"],
)
def test_what_was_shipped_is_equal_byte_for_byte(files: tuple[tuple[str, bytes], ...]) -> None:
    text, data = compared(host(), *files)
    assert deviations(text.images) == deviations(data.images) == []
    assert (text.gaps, data.gaps) == ((), ())
    assert [(image.name, image.compared) for image in text.images] == [("kernel", 0x400), ("sample", 38), ("user", 43)]
    assert [(image.name, image.compared) for image in data.images] == [("kernel", 228), ("sample", 72), ("user", 72)]


def test_every_kind_of_site_is_counted_in_its_state() -> None:
    text, _ = compared(host(), *GIVEN)
    assert [(count.kind, count.state, count.count) for count in text.images[0].sites] == [
        ("alternative", "as built", 1),
        ("lock prefix", "lock", 1),
        ("return site", "by thunk", 1),
    ]


@pytest.mark.parametrize("what", LAWFUL)
def test_a_site_may_hold_what_the_kernel_lawfully_writes_there(what: str) -> None:
    image = host()
    image.poke(*LAWFUL[what])
    text, _ = compared(image, *GIVEN)
    assert deviations(text.images) == []
    assert text.gaps == ()


@pytest.mark.parametrize("what", CHANGED)
def test_one_change_in_text_is_one_deviation_with_both_values(what: str) -> None:
    address, value, kind, place, expected = CHANGED[what]
    image = host()
    image.poke(address, value)
    text, data = compared(image, *GIVEN)
    (one,) = deviations(text.images)
    assert deviations(data.images) == []
    assert (one.kind, one.address, one.size, one.owner) == (kind, place, len(expected), "")
    assert (one.found, one.expected[0]) == (image.peek(place, len(expected)).hex(), expected.hex())
    assert sum(span.end - span.start for span in one.span) == len(expected)
    assert [image.name for image in text.images if image.deviations] == ["kernel"]


@pytest.mark.parametrize("section", [".text", ".rodata", ".return_sites", ".note.gnu.build-id"])
def test_one_flipped_byte_of_a_module_is_one_deviation(section: str) -> None:
    image = host()
    inside = {".text": 1, ".rodata": 9, ".return_sites": 2, ".note.gnu.build-id": 2}[section]
    address = image.at[f"user {section}"] + inside
    built = image.peek(address, 1)
    image.poke(address, bytes([built[0] ^ 0x40]))
    text, data = compared(image, *GIVEN)
    (one,) = deviations(text.images + data.images)
    assert (one.address, one.size, one.expected) == (address, 1, (built.hex(),))
    assert one.kind == ("text" if section == ".text" else "rodata")


@pytest.mark.parametrize(
    ("address", "changed"),
    [
        (KERNEL.CONSTANTS + 1, True),
        (KERNEL.CONSTANTS + 0x7F, True),
        (KERNEL.LATE, False),
        (KERNEL.LATE + 0x3F, False),
        (KERNEL.LATE + 0x40, True),
    ],
)
def test_read_only_data_is_compared_but_for_what_is_so_after_init(address: int, changed: bool) -> None:  # noqa: FBT001 - a case
    image = host()
    image.poke(address, b"\xfe")
    _, data = compared(image, *GIVEN)
    assert [one.address for one in deviations(data.images)] == [address] * changed


def test_writable_data_is_not_compared() -> None:
    image = host()
    image.poke(image.at["sample .data"], b"\xff" * 8)
    text, data = compared(image, *GIVEN)
    assert deviations(text.images + data.images) == []


def test_a_page_that_is_not_there_is_a_gap_and_no_deviation() -> None:
    for page, what in ((KERNEL.CONSTANTS & ~0xFFF, "data"), (TEXT, "text")):
        image = host()
        image.wipe(page)
        text, data = compared(image, *GIVEN)
        assert deviations(text.images + data.images) == []
        gaps = data.gaps if what == "data" else text.gaps
        assert {gap.why for gap in gaps} == {"not in the image"}
        first = (data if what == "data" else text).images[0]
        assert first.compared == (228 - 192 if what == "data" else 0)


def test_in_a_format_that_tells_missing_from_zero_a_wiped_page_is_a_change() -> None:
    image = host()
    image.wipe(KERNEL.CONSTANTS & ~0xFFF)
    _, data = compared(image, *GIVEN, memory=image.lime())
    assert data.gaps == ()
    assert deviations(data.images)


def test_a_page_that_was_built_as_zero_is_as_it_should_be_where_zero_is_seen() -> None:
    made = ShippedModule("empty")
    made.elf.rows[made.rodata] = made.elf.rows[made.rodata]._replace(data=bytes(0x2000), size=0x2000)
    image = running(KERNEL, made)
    files = (("vmlinux", KERNEL.file()), ("empty.ko", made.file()))
    for memory in (image.raw(), image.lime()):
        _, data = compared(image, *files, memory=memory)
        assert (data.gaps, deviations(data.images)) == ((), [])
    frame = image.physical(image.at["empty .rodata"] + 0x1000) & ~0xFFF
    _, data = compared(image, *files, memory=image.lime(frame))
    assert [gap.what for gap in data.gaps] == ["4,096 bytes of .rodata of empty"]


def test_a_kernel_of_another_build_is_refused_by_name() -> None:
    why = refusals(host(), ("vmlinux", ShippedKernel(b"\xab" * 20).file()))
    assert why == f"vmlinux: has kernel of build {'ab' * 20}, in memory is build {BUILD_ID.hex()}"


def test_a_module_of_another_build_beside_the_kernel_is_a_deviation() -> None:
    other = ShippedModule("sample", b"\x99" * 20)
    text, data = compared(host(), ("linux.deb", package(KERNEL, other, USER)))
    (one,) = deviations(text.images)
    assert [gap.what for gap in data.gaps] == ["read-only data of sample"]
    assert (one.kind, one.symbol) == ("build id", "build id of sample")
    assert (one.found, one.expected) == (bytes(range(40, 60)).hex(), ("99" * 20,))


def test_a_module_of_another_build_alone_is_a_gap() -> None:
    other = ShippedModule("sample", b"\x99" * 20)
    text, data = compared(host(), GIVEN[0], ("sample.ko", other.file()), GIVEN[2])
    assert deviations(text.images + data.images) == []
    for gaps in (text.gaps, data.gaps):
        assert [gap.what for gap in gaps] == ["sample", "sample.ko"]


def test_a_module_that_no_file_has_is_a_gap() -> None:
    text, data = compared(host(), *GIVEN[:2])
    assert text.gaps == data.gaps == (Gap("user", "no file that was given has it"),)


def test_modules_without_the_kernel_leave_it_open() -> None:
    text, data = compared(host(), *GIVEN[1:])
    assert text.gaps == data.gaps == (Gap("kernel", "no file that was given has it"),)


def test_types_alone_are_nothing_to_compare_with() -> None:
    image = host()
    for files in ((), (("types.btf", image.types.btf),)):
        found = subject(image, files)
        assert isinstance(vendor_text(found), Absent)
        assert isinstance(vendor_data(found), Absent)


def test_a_file_of_no_use_is_named() -> None:
    text, data = compared(
        host(),
        *GIVEN,
        ("doc.deb", deb({"./usr/share/doc/x": b"x"}, name="linux-doc")),
        ("foreign.ko", ShippedModule("foreign").file()),
    )
    assert text.unused == data.unused
    assert [name.partition(",")[0] for name in text.unused] == ["linux-doc 6.12-1", "foreign.ko"]
    assert text.gaps == ()


def test_files_of_no_use_alone_are_the_reason() -> None:
    why = refusals(host(), ("doc.deb", deb({}, name="linux-doc")))
    assert why.startswith("linux-doc 6.12-1, which has neither")


def test_a_damaged_file_is_a_gap_and_what_it_gave_before_stays() -> None:
    whole = archive({f"./boot/vmlinuz-{RELEASE}": KERNEL_IMAGE, f"./lib/modules/{RELEASE}/sample.ko": SAMPLE.file()})
    cut = deb({}, data=whole[: whole.index(b"./lib/modules") + 1024])
    text, data = compared(host(), ("linux.deb", cut))
    assert [image.name for image in text.images] == ["kernel"]
    for gaps in (text.gaps, data.gaps):
        assert [gap.what for gap in gaps] == ["linux-image-test 6.12-1", "sample", "user"]
        assert "cut off" in gaps[0].why


@pytest.mark.parametrize("section", [".text", ".rodata", ".return_sites"])
@pytest.mark.parametrize("where", [0, "data", "elsewhere"])
def test_a_section_that_is_said_to_be_elsewhere_is_a_gap(section: str, where: int | str) -> None:
    """Whoever changes code could forge the list of sections as well, so that nothing is compared with it."""
    image = host()
    attributes, path = listed(image, "user", section)
    image.poke(image.at["user .text"] + 1, b"\x90")
    place = {"data": image.at["user .data"], "elsewhere": image.at["sample .text"]}.get(str(where), 0)
    image.member("module_sect_attrs", attributes, path, place)
    text, data = compared(image, *GIVEN)
    gaps = {gap.what for gap in (text if section == ".text" else data).gaps}
    assert f"{section} of user" in gaps


def test_text_of_the_kernel_outside_of_its_bounds_is_a_gap() -> None:
    image = host()
    image.name("_stext", TEXT + 16, "T")
    image.name("__start_rodata", KERNEL.CONSTANTS + 16, "R")
    image.put_tables()
    text, data = compared(image, *GIVEN)
    assert ".text of kernel" in {gap.what for gap in text.gaps}
    assert ".rodata of kernel" in {gap.what for gap in data.gaps}


def test_a_call_into_a_module_that_is_not_needed_is_a_change() -> None:
    """A loaded module may name its functions as it likes; only those that the file says it needs can be called."""
    rogue = ShippedModule("aaa", b"\x55" * 20)
    rogue.elf.symbol("sample_read", rogue.text, 8)
    image = running(KERNEL, rogue, SAMPLE, USER)
    text, _ = compared(image, *GIVEN, ("aaa.ko", rogue.file()))
    assert deviations(text.images) == []
    call = image.at["user .text"] + 32 + 5
    image.poke(call + 1, (image.at["aaa .text"] + 8 - call - 5).to_bytes(4, "little", signed=True))
    text, _ = compared(image, *GIVEN, ("aaa.ko", rogue.file()))
    assert [(one.kind, one.address) for one in deviations(text.images)] == [("text", call + 1)]


def test_a_second_file_of_an_object_takes_nothing_back() -> None:
    """Whoever hands over a file that fits the change does not hide it from the vendor's own."""
    image = host()
    image.poke(KERNEL.WRITE + 0x1C, b"\xc2")
    forged = ShippedKernel()
    forged.pieces = [
        piece._replace(data=piece.data.replace(b"\xff\x00\xc3", b"\xff\x00\xc2")) for piece in forged.pieces
    ]
    for files in ((*GIVEN, ("forged", forged.file())), (("forged", forged.file()), *GIVEN)):
        text, _ = compared(image, *files)
        assert [(one.name, one.reference) for one in text.images[:2]] == [("kernel", "forged"), ("kernel", "vmlinux")]
        assert [one.address for one in deviations(text.images)] == [KERNEL.WRITE + 0x1C]


def test_the_same_change_is_told_once() -> None:
    image = host()
    image.poke(KERNEL.WRITE + 0x1C, b"\xc2")
    text, _ = compared(image, *GIVEN, ("linux.deb", package()))
    assert len(text.images) == 6
    assert len(deviations(text.images)) == 1


def test_the_files_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def reading(system: System, source: Source) -> Iterator[Match | Mismatch | Failure]:
        read.append(source.name)
        return each_match(system, source)

    monkeypatch.setattr("hypervigil.extract.vendor.each_match", reading)
    compared(host(), *GIVEN)
    refusals(host(), ("vmlinux", ShippedKernel(b"\xab" * 20).file()))
    assert read == ["vmlinux", "sample.ko", "user.ko", "vmlinux"]


def test_text_that_cannot_be_compared_is_a_gap_and_the_rest_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(system: System, registry: Registry, code: Code, *rest: Any) -> Compared:  # noqa: ANN401 - handed on
        if code.owner == "sample":
            raise MissingMemory(code.start, 1)
        return compare_text(system, registry, code, *rest)

    monkeypatch.setattr("hypervigil.extract.vendor.compare_text", failing)
    text, data = compared(host(), *GIVEN)
    assert [image.name for image in text.images] == ["kernel", "user"]
    assert [gap.what for gap in text.gaps] == ["text of sample"]
    assert [image.name for image in data.images] == ["kernel", "sample", "user"]


def test_what_nobody_defines_leaves_text_and_data_open() -> None:
    lost = ShippedModule("user", b"\x77" * 20, calls=("vfs_read", "nobody"), depends="sample")
    text, data = compared(host(), *GIVEN[:2], ("user.ko", lost.file()))
    assert text.gaps == data.gaps == (Gap("what user refers to", "nobody defines nobody"),)
    assert deviations(text.images + data.images) == []


def test_what_the_kernel_has_registered_and_cannot_be_read_leaves_text_open() -> None:
    image = host()
    del image.symbols["vmap_area_list"]
    image.put_tables()
    text, data = compared(image, *GIVEN)
    assert "vmap areas" in {gap.what for gap in text.gaps}
    assert data.gaps == ()
    image.poke(image.symbols["modules"][0], bytes(8))
    for found in compared(image, *GIVEN):
        assert any("module list" in gap.what for gap in found.gaps)


HOST = System(host().open())


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(range(len(GIVEN))),
    st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_any_damage_to_a_file_gives_facts_or_a_reason(index: int, changes: list[tuple[int, int]]) -> None:
    name, whole = GIVEN[index]
    data = bytearray(whole)
    for place, value in changes:
        data[place % len(data)] = value
    files = [*GIVEN[:index], (name, bytes(data)), *GIVEN[index + 1 :]]
    try:
        references = tuple(open_reference(*one) for one in files)
    except EvidenceError:
        return
    for outcome in (
        extract(vendor_text, found := Subject(HOST, Census(HOST), references)),
        extract(vendor_data, found),
    ):
        assert isinstance(outcome, VendorText | VendorData | Unknown)


KERNELS = ("6.1", *(pytest.param(kernel, marks=pytest.mark.matrix) for kernel in ("5.10", "6.12", "newest")))
TAMPERED = {"kvm-text-reencoded": "text", "kvm-module-trojaned": "text", "kvm-rodata-changed": "rodata"}


@pytest.mark.lab
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scenario", TAMPERED)
def test_a_change_in_an_image_is_found(
    lab_image: Produce, lab_kernel: Callable[[str], Kernel], kernel: str, scenario: str
) -> None:
    text, data = packaged(lab_image, lab_kernel(kernel), kernel, scenario)
    found = [one for one in deviations(text.images + data.images) if not one.owner]
    assert {one.kind for one in found} == {TAMPERED[scenario]}
    assert {image.name for image in text.images + data.images if image.deviations} <= {"kvm", "kvm_amd"}


@pytest.mark.lab
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_clean_image_is_as_shipped(lab_image: Produce, lab_kernel: Callable[[str], Kernel], kernel: str) -> None:
    text, data = packaged(lab_image, lab_kernel(kernel), kernel, "plain")
    assert deviations(text.images + data.images) == []
    assert (text.gaps, data.gaps) == ((), ())
    assert {"kernel", "kvm", "kvm_amd"} <= {image.name for image in text.images}
    assert sum(image.compared for image in text.images) > 10 << 20
