from hypervigil.core.units import PAGE_SIZE, FileOffset, PhysAddr, VirtAddr


def test_units_are_plain_numbers_at_run_time() -> None:
    assert {VirtAddr(5), PhysAddr(5), FileOffset(5)} == {5}


def test_the_smallest_page_of_x86_64() -> None:
    assert PAGE_SIZE == 1 << 12
