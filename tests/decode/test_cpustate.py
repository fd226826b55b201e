import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import DecodeError
from hypervigil.core.units import VirtAddr
from hypervigil.decode.cpustate import DescriptorTable, decode_info_registers, decode_prstatus, decode_qemu_state
from tests.decode.elf_encoder import qemu_state

TEXT = """
CPU#0
RAX=0000000000000000 RBX=ffff8b2541f51b40 RCX=0000000000000001 RDX=0000000000000000
RSI=0000000000000000 RDI=0000000000000000 RBP=0000000000000000 RSP=ffffd24600467d60
RIP=ffffffff9ec9bf40 RFL=00000282 [--S----] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0000 0000000000000000 00000000 00000000
CS =0010 0000000000000000 ffffffff 00a09b00 DPL=0 CS64 [-RA]
FS =0000 000000001b760380 00000000 00000000
GS =0000 ffff8b25be25b000 00000000 00000000
TR =0040 fffffe455ae19000 00004087 00008900 DPL=0 TSS64-avl
GDT=     fffffe455ae17000 0000007f
IDT=     fffffe0000000000 00000fff
CR0=80050033 CR2=0000000000000000 CR3=00000000033ba000 CR4=003506f0
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000
EFER=0000000000001d01
FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80

CPU#1
CR0=80050033 CR2=0000000000000000 CR3=0000000002575000 CR4=003506f0
"""


def test_a_qemu_note_has_the_registers_that_lead_to_the_kernel() -> None:
    state = decode_qemu_state(qemu_state(cr3=0x33BA000), 3)
    assert (state.cpu, state.cr3, state.cr4, state.cr0, state.cr2) == (3, 0x33BA000, 0x3506F0, 0x80050033, 0x5000)
    assert (state.rip, state.rsp, state.rflags, state.cs) == (116, 106, 117, 0x10)
    assert state.idt == DescriptorTable(VirtAddr(0x9000), 0xFFF)
    assert state.gdt == DescriptorTable(VirtAddr(0x8000), 0xFFF)
    assert state.kernel_gs_base == 0xAAAA


def test_the_older_note_lacks_the_kernel_gs_base() -> None:
    assert decode_qemu_state(qemu_state(size=432), 0).kernel_gs_base is None


@pytest.mark.parametrize("data", [b"", qemu_state()[:431], b"\2" + qemu_state()[1:], qemu_state(size=440)[:432]])
def test_a_short_or_strange_note_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_qemu_state(data, 0)


def test_the_monitors_text_gives_every_processor() -> None:
    first, second = decode_info_registers(TEXT)
    assert (first.cpu, first.cr3, first.cr4, first.efer) == (0, 0x33BA000, 0x3506F0, 0x1D01)
    assert (first.rip, first.rsp, first.rflags, first.cs) == (0xFFFFFFFF9EC9BF40, 0xFFFFD24600467D60, 0x282, 0x10)
    assert (first.gs_base, first.fs_base) == (0xFFFF8B25BE25B000, 0x1B760380)
    assert first.idt == DescriptorTable(VirtAddr(0xFFFFFE0000000000), 0xFFF)
    assert (second.cpu, second.cr3, second.rip, second.gs_base, second.idt) == (1, 0x2575000, None, None, None)


@pytest.mark.parametrize("text", ["", "CPU#0\nX0=0000000000000000", "x" * (5 << 20)])
def test_a_text_without_x86_registers_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        decode_info_registers(text)


@given(st.binary(max_size=600))
def test_any_notes_give_a_value_or_a_reason(data: bytes) -> None:
    for decode in (decode_qemu_state, decode_prstatus):
        try:
            state = decode(data, 0)
        except DecodeError:
            continue
        assert len(data) >= 328
        assert state.cpu == 0
