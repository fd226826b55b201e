from pathlib import Path

import pytest

from hypervigil.core.errors import MissingMemory
from hypervigil.core.units import PAGE_SIZE
from hypervigil.memory.open import open_image, read_image
from hypervigil.memory.stream import each_chunk, range_of
from tests.decode.test_lime import lime


def test_chunks_cover_all_and_begin_on_pages() -> None:
    data = bytes(range(256)) * 64
    memory = read_image(memoryview(lime((0, data), (0x10_0000, data[:5000]))))
    chunks = [(address, bytes(chunk)) for address, chunk in each_chunk(memory, 2 * PAGE_SIZE)]
    assert [(address, len(chunk)) for address, chunk in chunks] == [
        (0, 8192),
        (0x2000, 8192),
        (0x10_0000, 5000),
    ]
    assert b"".join(chunk for _, chunk in chunks) == data + data[:5000]


def test_a_range_that_begins_within_a_page_is_taken_from_the_next_page_on() -> None:
    memory = read_image(memoryview(lime((0x1800, b"a" * 0x1800))))
    assert [(address, len(chunk)) for address, chunk in each_chunk(memory, PAGE_SIZE)] == [(0x2000, 0x1000)]


def test_a_mapped_file_is_read_twice_the_same(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"x" * 3 * PAGE_SIZE)
    memory = open_image(str(tmp_path / "image"))
    for _ in range(2):
        assert b"".join(bytes(chunk) for _, chunk in each_chunk(memory, PAGE_SIZE)) == b"x" * 3 * PAGE_SIZE


def test_the_range_of_an_address_is_half_open() -> None:
    memory = read_image(memoryview(lime((0x1000, b"a" * 0x1000), (0x2000, b"b" * 16))))
    assert range_of(memory, 0x1FFF).start == 0x1000
    assert range_of(memory, 0x2000).end == 0x2010
    with pytest.raises(MissingMemory, match="physical 0x2010"):
        range_of(memory, 0x2010)
    with pytest.raises(MissingMemory):
        range_of(memory, 0xFFF)
