import struct

import pytest

from hypervigil.core.errors import MissingDescription
from hypervigil.core.facts import Gap
from hypervigil.linux import exports
from hypervigil.linux.exports import Comparison, compare_exports
from hypervigil.memory.symbols import Losses
from tests.linux.host_builder import host
from tests.linux.kernel_builder import KernelImage, lose_symbols

WIDTH = 12


def table(image: KernelImage, name: str, *rows: tuple[str, int]) -> int:
    """A table of exports, each ``(name, address)``; return where it begins."""
    names = [image.put_in("rodata", text.encode() + b"\0", f"name_of_{text}") for text, _ in rows]
    start = image.put_in("rodata", bytes(WIDTH * len(rows)), f"__start_{name}", 4)
    for index, ((_, address), at) in enumerate(zip(rows, names, strict=True)):
        place = start + WIDTH * index
        image.poke(place, struct.pack("<iii", _distance(address - place), at - place - 4, 0))
    image.name(f"__stop_{name}", start + WIDTH * len(rows), "r")
    image.put_tables()
    return start


def _distance(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def compared(image: KernelImage) -> Comparison:
    return compare_exports(image.open())


def test_exports_that_kallsyms_places_alike_agree() -> None:
    image = host()
    assert compared(image) == Comparison((), 1, ())
    table(image, "__ksymtab_gpl", *((name, image.symbols[name][0]) for name in ("asm_exc_page_fault", "nr_cpu_ids")))
    assert compared(image) == Comparison((), 3, ())


def test_an_export_elsewhere_is_told_with_both_places() -> None:
    image = host()
    right, wrong = image.symbols["asm_exc_page_fault"][0], image.symbols["exported_one"][0]
    start = table(image, "__ksymtab_gpl", ("exported_one", wrong), ("asm_exc_page_fault", wrong))
    (found,) = compared(image).items
    assert (found.entry, found.size, found.name) == (start + WIDTH, WIDTH, "asm_exc_page_fault")
    assert found.message == f"kallsyms places asm_exc_page_fault at {right:#x}, the export table at {wrong:#x}"


def test_an_export_without_a_symbol_is_told() -> None:
    image = host()
    table(image, "__ksymtab_gpl", ("nowhere", image.symbols["exported_one"][0]))
    (found,) = compared(image).items
    assert found.message == "exported symbol nowhere is not in kallsyms"


def test_of_several_symbols_of_a_name_one_must_fit() -> None:
    image = host()
    image.name("twice", image.symbols["nr_cpu_ids"][0])
    table(image, "__ksymtab_gpl", ("twice", image.symbols["nr_cpu_ids"][0]))
    assert compared(image).items == ()


def test_an_export_whose_symbol_may_be_lost_is_neither_compared_nor_wrong() -> None:
    image = host()
    one, wrong = image.symbols["exported_one"][0], image.symbols["asm_exc_page_fault"][0]
    table(image, "__ksymtab_gpl", ("exported_one", one), ("lost_one", wrong), ("lost_two", wrong), ("never", wrong))
    kernel = image.open()
    lose_symbols(kernel, Losses(("lost_one", "lost_two"), (), tuple(sorted(kernel.symbols.names))))
    found = compare_exports(kernel)
    assert [item.name for item in found.items] == ["never"]
    assert found.compared == 3
    assert found.gaps == (
        Gap("2 entries of __ksymtab_gpl", "their symbols may be in a lost part of kallsyms in the image"),
    )


@pytest.mark.parametrize("lost", ["__start___ksymtab", "__stop___ksymtab"])
def test_a_table_whose_bounds_are_lost_is_a_gap(lost: str) -> None:
    image = host()
    table(image, "__ksymtab_gpl", ("exported_one", image.symbols["exported_one"][0]))
    kernel = image.open()
    lose_symbols(kernel, Losses((lost,), (), None, nameless=False))
    found = compare_exports(kernel)
    assert (found.compared, [gap.what for gap in found.gaps]) == (1, ["__ksymtab"])


def test_per_cpu_symbols_are_not_compared() -> None:
    image = host()
    table(image, "__ksymtab_gpl", ("runqueues", image.symbols["exported_one"][0]))
    assert compared(image) == Comparison((), 2, ())


def test_a_table_that_cannot_be_read_is_a_gap_and_the_other_is_compared() -> None:
    image = host()
    image.name("__start___ksymtab_gpl", 0xFFFF_FFFF_9000_0000, "r")
    image.name("__stop___ksymtab_gpl", 0xFFFF_FFFF_9000_0000 + WIDTH, "r")
    image.put_tables()
    found = compared(image)
    assert (found.compared, [gap.what for gap in found.gaps]) == (1, ["__ksymtab_gpl"])


@pytest.mark.parametrize("count", [0, -1, (1 << 17) + 1])
def test_an_impossible_number_of_exports_is_a_gap(count: int) -> None:
    image = host()
    image.name("__stop___ksymtab", image.symbols["__start___ksymtab"][0] + WIDTH * count, "r")
    image.put_tables()
    assert compared(image) == Comparison((), 0, (Gap("__ksymtab", f"{count} exported symbols"),))


def test_names_that_lie_too_far_apart_are_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    image = host()
    one = image.symbols["exported_one"][0]
    start = table(image, "__ksymtab_gpl", ("exported_one", one), ("exported_one", one))
    image.poke(start + WIDTH + 4, struct.pack("<i", -0x7000_0000))
    assert compared(image).gaps == (Gap("__ksymtab_gpl", "the names of exported symbols lie too far apart"),)
    monkeypatch.setattr(exports, "_MAX_STRINGS", 0)
    assert len(compared(image).gaps) == 2


def test_a_type_that_does_not_hold_its_members_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "offset_of", lambda *_: 10)
    assert compared(host()).gaps == (Gap("__ksymtab", "struct kernel_symbol does not hold its members"),)


def test_without_a_table_nothing_is_known() -> None:
    image = host()
    image.symbols.pop("__start___ksymtab")
    image.put_tables()
    with pytest.raises(MissingDescription, match="__start___ksymtab"):
        compared(image)
