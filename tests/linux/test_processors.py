from hypervigil.linux.processors import host_processors
from tests.linux.host_builder import host


def test_formats_without_registers_have_no_processors() -> None:
    assert list(host_processors(host().open())) == []


def test_processors_on_the_host_s_tables_are_named_with_their_tables() -> None:
    image = host()
    process = image.physical(image.word(image.at["mm"] + image.types.offset("mm_struct", "pgd")))
    memory = image.cores((image.root | 0xFFF, 0), (process, 0))
    assert list(host_processors(image.open(memory))) == [(0, image.root), (1, process)]


def test_a_processor_that_ran_a_guest_is_left_out() -> None:
    image = host()
    guest, away = image.frame(), 1 << 40
    memory = image.cores((guest, 0), (image.root, 0), (away, 0))
    assert [cpu for cpu, _ in host_processors(image.open(memory))] == [1]
