from pathlib import Path

import pytest

from hypervigil.core.errors import MissingDescription, UnsupportedEvidence
from hypervigil.core.units import PAGE_SIZE
from hypervigil.memory.kernel import open_kernel
from hypervigil.memory.open import open_image

_MORE = b"".join(b"SIZE(type%d)=64\nOFFSET(type%d.member)=8\n" % (n, n) for n in range(16))
_ARM = b"OSRELEASE=6.1.0-arm64\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffff800009000000\nNUMBER(VA_BITS)=48\n"


def image(path: Path, content: bytes) -> Path:
    made = path / "memory.raw"
    made.write_bytes(bytes(PAGE_SIZE) + content + bytes(-len(content) % PAGE_SIZE) + bytes(8 * PAGE_SIZE))
    return made


@pytest.mark.parametrize(("more", "name"), [(b"NUMBER(kimage_voffset)=0x1\n", "aarch64"), (b"", "aarch64 or riscv")])
def test_memory_of_another_machine_is_refused_by_its_name(tmp_path: Path, more: bytes, name: str) -> None:
    made = image(tmp_path, _ARM + more + _MORE)
    with pytest.raises(UnsupportedEvidence, match=rf"Linux 6\.1\.0-arm64 on {name};"):
        open_kernel(open_image(str(made)))


@pytest.mark.parametrize(
    ("text", "name"),
    [(b"ntoskrnl.exe\0", "Windows"), (b"VMkernel ESXi 8\0", "VMware ESXi"), (b"FreeBSD/amd64 ", "FreeBSD")],
)
def test_memory_of_another_system_is_refused_by_its_name(tmp_path: Path, text: bytes, name: str) -> None:
    made = image(tmp_path, text * 5)
    with pytest.raises(UnsupportedEvidence, match=f"a {name} machine"):
        open_kernel(open_image(str(made)))


def test_a_text_that_stands_there_by_chance_names_nothing(tmp_path: Path) -> None:
    made = image(tmp_path, b"ntoskrnl.exe\0" * 2)
    with pytest.raises(MissingDescription, match="no kernel was found"):
        open_kernel(open_image(str(made)))
