import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError, UnsupportedEvidence
from hypervigil.decode.elfcore import ElfCore, decode_elf_core
from tests.decode.elf_encoder import elf, note, qemu_state


def _decode(data: bytes) -> ElfCore:
    return decode_elf_core(memoryview(data))


def test_segments_and_notes_are_found() -> None:
    text = b"OSRELEASE=6.1\n"
    notes = note(b"CORE", 1, bytes(336)) + note(b"QEMU", 0, qemu_state()) + note(b"VMCOREINFO", 0, text)
    data = elf([(0x1000, b"a" * 8), (0x100000, b"b" * 4)], notes)
    core = _decode(data)
    assert [(s.physical, s.file_size, data[s.offset : s.offset + s.file_size]) for s in core.segments] == [
        (0x1000, 8, b"a" * 8),
        (0x100000, 4, b"b" * 4),
    ]
    assert core.vmcoreinfo is not None
    assert data[slice(*core.vmcoreinfo)] == text
    assert [(cpu.source, cpu.cr3, cpu.gs_base) for cpu in core.cpus] == [
        ("QEMU note", 0x1234000, 0xFFFF_8000_0000_1000)
    ]
    assert core.faults == ()


def test_without_qemu_notes_the_general_registers_are_taken() -> None:
    status = bytes(112) + b"".join(i.to_bytes(8, "little") for i in range(27))
    (cpu,) = _decode(elf([], note(b"CORE", 1, status))).cpus
    assert (cpu.source, cpu.rip, cpu.cs, cpu.rsp, cpu.gs_base, cpu.cr3) == ("NT_PRSTATUS note", 16, 17, 19, 22, None)


def test_the_count_of_many_segments_stands_in_the_first_section() -> None:
    assert len(_decode(elf([(i << 12, b"x") for i in range(5)], xnum=True)).segments) == 5


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"machine": 183}, "aarch64"),
        ({"machine": 22}, "s390x"),
        ({"machine": 9999}, "machine number 9999"),
        ({"ident": b"\x7fELF\1\1\1"}, "32-bit"),
        ({"ident": b"\x7fELF\2\2\1"}, "big-endian"),
        ({"kind": 2}, "ELF executable, not a core"),
        ({"kind": 77}, "type 77"),
    ],
)
def test_other_elf_files_are_refused_by_name(changed: dict[str, int], reason: str) -> None:
    with pytest.raises(UnsupportedEvidence, match=reason):
        _decode(elf([(0, b"x")], **changed))  # type: ignore[arg-type]  # one field of several types each time


@pytest.mark.parametrize("size", [0, 4, 63, 100])
def test_a_cut_header_is_refused(size: int) -> None:
    with pytest.raises(DecodeError):
        _decode(elf([(0, b"x"), (4096, b"y")])[:size])


def test_a_bad_note_is_a_fault_and_the_memory_stays() -> None:
    core = _decode(elf([(0, b"x")], note(b"QEMU", 0, b"\7" * 440) + b"\xff" * 16))
    assert len(core.segments) == 1
    assert len(core.faults) == 2
    assert core.cpus == ()


@given(st.data())
def test_damaged_cores_give_a_value_or_a_reason(data: st.DataObject) -> None:
    raw = bytearray(elf([(0, b"x" * 40), (4096, b"y")], note(b"QEMU", 0, qemu_state()), xnum=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DecodeError, UnsupportedEvidence):
        assert len(_decode(bytes(raw[: data.draw(st.integers(0, len(raw)))])).segments) <= 3
