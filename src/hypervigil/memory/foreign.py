"""Naming what an image is, when it is no memory of x86-64 Linux.

Two ways: a VMCOREINFO of Linux that has what only another architecture writes (Linux arch/arm64, arch/riscv,
arch/s390, arch/powerpc and arch/loongarch: machine_kexec.c, vmcore_info.c), and texts that every running system of a
kind keeps in memory.
"""

import re

from hypervigil.decode.vmcoreinfo import VmcoreInfo
from hypervigil.memory.reader import Reader
from hypervigil.memory.stream import each_chunk

_CHUNK = 1 << 22
_NUMBERS = {
    "kimage_voffset": "aarch64",
    "va_kernel_pa_offset": "riscv",
    "VA_BITS": "aarch64 or riscv",
}
_SYMBOLS = {
    "lowcore_ptr": "s390x",
    "vmemmap_list": "powerpc64",
    "contig_page_data": "a 32-bit machine",
}
_TEXTS = {
    b"ntkrnlmp.pdb": "Windows",
    b"ntoskrnl.exe": "Windows",
    b"FreeBSD/amd64": "FreeBSD",
    b"Darwin Kernel Version ": "macOS",
    b"VMkernel ESXi ": "VMware ESXi",
}
_ANY = re.compile(b"|".join(re.escape(text) for text in _TEXTS))
_ENOUGH = 4


def architecture_of(info: VmcoreInfo) -> str:
    """The machine whose kernel wrote a VMCOREINFO, where it is another than x86-64; empty where nothing tells."""
    if "phys_base" in info.numbers:
        return ""
    for known, words in ((_NUMBERS, info.numbers), (_SYMBOLS, info.symbols)):
        for key, machine in known.items():
            if key in words:
                return machine
    return ""


def foreign_system(memory: Reader) -> str:
    """The system whose texts stand in memory more than a few times; empty where none does.

    Called only where no Linux kernel was found: a host's page cache may hold such texts too.
    """
    seen: dict[str, int] = {}
    for _, chunk in each_chunk(memory, _CHUNK):
        for match in _ANY.finditer(chunk):
            system = _TEXTS[match.group()]
            seen[system] = seen.get(system, 0) + 1
            if seen[system] >= _ENOUGH:
                return system
    return ""
