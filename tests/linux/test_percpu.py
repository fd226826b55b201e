import struct

import pytest

from hypervigil.core.errors import MissingDescription, MissingMemory
from hypervigil.linux.percpu import each_cpu_offset, per_cpu
from tests.linux.host_builder import host


def test_every_possible_processor_has_its_offset() -> None:
    image = host()
    assert each_cpu_offset(image.open()) == (
        (0, image.word(image.symbols["__per_cpu_offset"][0])),
        (1, image.word(image.symbols["__per_cpu_offset"][0] + 8)),
    )


@pytest.mark.parametrize("count", [0, 8193, 0xFFFF_FFFF])
def test_an_impossible_number_of_processors_is_refused(count: int) -> None:
    image = host()
    image.poke(image.symbols["nr_cpu_ids"][0], struct.pack("<I", count))
    with pytest.raises(MissingDescription, match=f"nr_cpu_ids is {count}"):
        each_cpu_offset(image.open())


def test_a_table_that_reaches_out_of_memory_is_missing() -> None:
    image = host()
    image.name("__per_cpu_offset", 0xFFFF_FFFF_9000_0000)
    image.put_tables()
    with pytest.raises(MissingMemory):
        each_cpu_offset(image.open())


@pytest.mark.parametrize(
    ("variable", "offset", "address"),
    [
        (0x40, 0xFFFF_8880_0010_0000, 0xFFFF_8880_0010_0040),
        (0xFFFF_FFFF_8200_0000, 0xFFFF_0000_8000_0000, 0xFFFF_0000_0200_0000),
    ],
)
def test_a_copy_is_at_its_variable_plus_the_offset_modulo_the_address_space(
    variable: int, offset: int, address: int
) -> None:
    assert per_cpu(variable, offset) == address
