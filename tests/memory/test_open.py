import contextlib
import gzip
import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError, UnsupportedEvidence, UsageError
from hypervigil.core.evidence import Span
from hypervigil.core.units import PhysAddr
from hypervigil.memory.open import open_image, read_image
from hypervigil.memory.recording import RecordingReader
from tests.decode.elf_encoder import elf, note, qemu_state
from tests.decode.test_lime import lime
from tests.memory.test_recording import Changing


def _write(folder: Path, content: bytes, name: str = "image") -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def test_a_raw_image_begins_at_address_zero(tmp_path: Path) -> None:
    memory = open_image(_write(tmp_path, b"\xeb\xfe" + bytes(4094) + b"x"))
    assert [(r.start, r.end) for r in memory.ranges] == [(0, 4097)]
    assert (memory.zero_is_missing, memory.registers, memory.gaps) == (True, (), ())
    assert memory.spans(PhysAddr(4096), 1) == (Span("memory", 4096, 4097),)


def test_holes_of_a_sparse_file_are_zeros(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(1 << 30)
        file.write(b"end")
    memory = open_image(str(path))
    assert memory.read(PhysAddr(1 << 29), 8) == bytes(8)
    assert memory.read(PhysAddr(1 << 30), 3) == b"end"


def test_lime_ranges_are_memory(tmp_path: Path) -> None:
    memory = open_image(_write(tmp_path, lime((0x1000, b"a" * 16), (0x100000, b"b" * 8))), "acquired")
    assert memory.read(PhysAddr(0x100000), 8) == b"b" * 8
    assert memory.zero_is_missing is False
    assert memory.spans(PhysAddr(0x1000), 16) == (Span("acquired", 32, 48),)


@pytest.mark.parametrize(
    ("data", "gap"),
    [
        (lime((0, b"a" * 16), (0x1000, b"b" * 16))[:-6], "physical 0x100a to 0x1010: the file ends"),
        (lime((0, b"a" * 16)) + b"junk" * 8, "ranges after physical 0x10: lime header at byte 0x30: magic"),
    ],
)
def test_a_damaged_lime_file_keeps_what_is_whole_and_tells_the_rest(data: bytes, gap: str) -> None:
    memory = read_image(memoryview(data))
    assert memory.read(PhysAddr(0), 16) == b"a" * 16
    assert str(memory.gaps[0]).startswith(gap)


def test_an_elf_core_brings_registers_and_vmcoreinfo() -> None:
    notes = note(b"QEMU", 0, qemu_state(cr3=0xABC000)) + note(b"VMCOREINFO", 0, b"OSRELEASE=6.1\n")
    memory = read_image(memoryview(elf([(0, b"low!"), (1 << 32, b"high")], notes)))
    assert memory.read(PhysAddr(1 << 32), 4) == b"high"
    assert [cpu.cr3 for cpu in memory.registers] == [0xABC000]
    assert memory.vmcoreinfo == b"OSRELEASE=6.1\n"
    assert memory.zero_is_missing is False


def test_what_an_elf_core_names_and_does_not_hold_is_a_gap() -> None:
    memory = read_image(memoryview(elf([(0x1000, b"abcd")], memory_size=16)))
    assert [str(gap) for gap in memory.gaps] == ["physical 0x1004 to 0x1010: the dump names it and does not hold it"]


def test_a_filtered_dump_has_one_gap_for_all() -> None:
    memory = read_image(memoryview(elf([(page << 12, b"abcd") for page in range(100)], memory_size=4096)))
    assert [gap.what for gap in memory.gaps] == ["409200 bytes in 100 places of physical memory"]


def test_a_recording_is_opened_as_what_was_seen(tmp_path: Path) -> None:
    reader = RecordingReader(Changing())
    seen = reader.read(PhysAddr(0x2000), 16)
    with (tmp_path / "recording").open("wb") as file:
        reader.write(file)
    assert open_image(str(tmp_path / "recording")).read(PhysAddr(0x2000), 16) == seen


def test_a_truncated_elf_core_is_cut() -> None:
    memory = read_image(memoryview(elf([(0x1000, b"x" * 64), (0x2000, b"y" * 64)])[:-80]))
    assert [(r.start, r.end) for r in memory.ranges] == [(0x1000, 0x1030)]
    assert len(memory.gaps) == 2


REFUSED = [
    (b"KDUMP   ", "kdump-compressed"),
    (b"DISKDUMP", "diskdump"),
    (b"makedumpfile\0", "flattened"),
    (b"PAGEDU64", "Windows crash dump"),
    (b"hibr", "Windows hibernation"),
    (b"\xd2\xbe\xd2\xbe", "VMware suspended"),
    (b"QEVM", "migration stream"),
    (b"LibvirtQemudSave", "saved machine of libvirt"),
    (b"QFI\xfb", "qcow2 disk"),
    (b"KDMV", "VMDK disk"),
    (b"PK\x03\x04", "zip archive"),
    (lime((0, b"x"), version=2), "AVML"),
    (elf([(0, b"x")], machine=183), "aarch64"),
    (elf([]), "Xen"),
    (gzip.compress(b"x"), "packed with gzip"),
    (lzma.compress(b"x"), "packed with xz"),
    (b"", "empty file"),
]


@pytest.mark.parametrize(("content", "name"), REFUSED)
def test_other_formats_are_refused_by_name(tmp_path: Path, content: bytes, name: str) -> None:
    with pytest.raises(UnsupportedEvidence, match=name):
        open_image(_write(tmp_path, content + bytes(64) * bool(content)))


def test_a_vmem_file_is_refused_by_its_suffix(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedEvidence, match="vmss2core"):
        open_image(_write(tmp_path, bytes(4096), "host.vmem"))


@pytest.mark.parametrize("name", ["nowhere", ""])
def test_what_cannot_be_opened_is_the_users_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        open_image(str(tmp_path / name))


@given(st.sampled_from([content for content, _ in REFUSED] + [b"EMiL", b"\x7fELF"]), st.binary(max_size=120))
def test_any_content_is_memory_or_refused_with_a_reason(head: bytes, tail: bytes) -> None:
    with contextlib.suppress(UnsupportedEvidence, DecodeError):
        memory = read_image(memoryview(head + tail))
        assert all(len(memory.read(r.start, r.size)) == r.size for r in memory.ranges)
