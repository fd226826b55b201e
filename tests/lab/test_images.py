import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.lab.images import Format, compress, decompress, save
from hypervigil.lab.qmp import Qmp


class Monitor(Qmp):
    """QEMU that saves an image when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, object]] = []

    def execute(self, command: str, **arguments: object) -> None:
        self.asked.append((command, arguments["paging"]))
        Path(str(arguments["protocol"]).removeprefix("file:")).write_bytes(b"\x7fELF")


def content(path: Path, form: Format) -> bytes:
    (path / "ram").write_bytes(bytes(8192) + b"x" * 5 + bytes(4091) + bytes(4096))
    save(Monitor(), path / "ram", path / "image", form)
    assert sorted(file.name for file in path.iterdir()) == ["image", "ram"]
    return (path / "image").read_bytes()


def test_a_raw_image_is_the_memory_with_holes(tmp_path: Path) -> None:
    assert content(tmp_path, Format.RAW) == (tmp_path / "ram").read_bytes()
    assert (tmp_path / "image").stat().st_blocks * 512 <= 4096


def test_a_lime_image_has_one_range(tmp_path: Path) -> None:
    data = content(tmp_path, Format.LIME)
    assert struct.unpack_from("<IIQQQ", data) == (0x4C694D45, 1, 0, 4 * 4096 - 1, 0)
    assert data[32:] == (tmp_path / "ram").read_bytes()


@pytest.mark.parametrize(("form", "paging"), [(Format.ELF, False), (Format.ELF_PAGING, True)])
def test_an_elf_image_is_left_to_qemu(tmp_path: Path, form: Format, *, paging: bool) -> None:
    monitor = Monitor()
    save(monitor, tmp_path / "ram", tmp_path / "image", form)
    assert (tmp_path / "image").read_bytes() == b"\x7fELF"
    assert monitor.asked == [("dump-guest-memory", paging)]


PIECES = {"hole": bytes(1 << 20), "page": b"x" * 4096, "odd": b"\0\1"}


@given(st.lists(st.sampled_from(sorted(PIECES)), max_size=4))
def test_what_is_compressed_is_decompressed(tmp_path_factory: pytest.TempPathFactory, pieces: list[str]) -> None:
    data = b"".join(PIECES[piece] for piece in pieces)
    folder = tmp_path_factory.mktemp("zstd")
    (folder / "image").write_bytes(data)
    compressed = compress(folder / "image")
    assert not (folder / "image").exists()
    decompress(compressed, folder / "back")
    assert (folder / "back").read_bytes() == data
