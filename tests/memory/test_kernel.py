import re

import pytest

from hypervigil.core.errors import MissingDescription, MissingMemory
from hypervigil.core.units import PAGE_SIZE
from hypervigil.memory.kernel import Kernel
from hypervigil.memory.open import read_image
from tests.linux.kernel_builder import DATA, PHYSICAL, RELEASE, RODATA, TABLES, TEXT, KernelImage, bare_kernel


def image() -> KernelImage:
    made = bare_kernel()
    made.finish()
    return made


def hints(made: KernelImage) -> bytes:
    names = ("num_syms", "names", "token_table", "token_index", "markers")
    return "".join(f"SYMBOL(kallsyms_{n})={made.at[f'kallsyms_{n}']:x}\n" for n in names).encode()


def with_lines(made: KernelImage, lines: bytes) -> KernelImage:
    place = made.at["vmcoreinfo"]
    text = bytes(made.data[place : place + PAGE_SIZE]).rstrip(b"\0") + lines
    made.data[place : place + len(text)] = text
    return made


def kept(kernel: Kernel, what: str) -> list[tuple[bool, str]]:
    return [(c.kept, c.reason) for c in kernel.candidates if c.what == what]


def test_a_kernel_is_opened_with_all_that_describes_it() -> None:
    kernel = image().open()
    assert kernel.vmcoreinfo.osrelease == RELEASE
    assert kernel.symbols.address("_stext") == TEXT
    assert kernel.btf.end_id > 1
    assert kernel.rests_on == (
        "BTF in the image",
        "VMCOREINFO in the image",
        "kallsyms in the image",
        "page tables in the image",
    )


def test_objects_are_read_through_types_and_symbols() -> None:
    made = image()
    kernel = made.open()
    thing = kernel.variable("init_uts_ns", "struct uts_namespace")
    assert thing.name.release.string_() == RELEASE.encode()
    assert set(kernel.used_types) == {"struct uts_namespace"}
    (span,) = kernel.spans(TEXT + 16, 8)
    assert span.start == PHYSICAL + 16


def test_reading_an_object_where_nothing_is_raises_our_error() -> None:
    kernel = image().open()
    with pytest.raises(MissingMemory):
        kernel.object("struct list_head", 0xFFFF_8000_0000_0000).next.value_()


def test_an_unknown_type_says_whether_there_are_types_at_all() -> None:
    made = image()
    with pytest.raises(MissingDescription, match=r"type struct nothing was not found$"):
        made.open().type("struct nothing")
    made.poke_image(TABLES, bytes(64))
    kernel = made.open()
    with pytest.raises(MissingDescription, match="struct list_head was not found; BTF at __start_BTF"):
        kernel.type("struct list_head")
    with pytest.raises(MissingDescription, match="does not decode"):
        _ = kernel.btf
    assert kept(kernel, "BTF")[0][0] is False
    assert "BTF in the image" not in kernel.rests_on


def test_types_in_a_missing_page_are_not_looked_for_elsewhere_and_named() -> None:
    made = image()
    made.poke_image(TABLES & -PAGE_SIZE, bytes(PAGE_SIZE))
    kernel = made.open()
    with pytest.raises(MissingDescription, match=r"BTF cannot be read at its symbols: virtual .* all zero"):
        _ = kernel.btf


def test_symbols_are_taken_where_vmcoreinfo_says() -> None:
    made = image()
    kernel = with_lines(made, hints(made)).open()
    assert [reason.split(";")[0] for k, reason in kept(kernel, "kallsyms") if k] == [
        f"{len(made.symbols)} symbols, found by VMCOREINFO"
    ]


def test_a_wrong_hint_is_told_and_the_scan_finds_them_anyway() -> None:
    made = image()
    wrong = hints(made).replace(f"{made.at['kallsyms_token_table']:x}".encode(), f"{TEXT + 0x100:x}".encode())
    kernel = with_lines(made, wrong).open()
    assert [k for k, _ in kept(kernel, "kallsyms")] == [False, False, True]
    assert "found by scan" in kept(kernel, "kallsyms")[-1][1]


@pytest.mark.parametrize("place", [0x1000, 0xFFFF_8880_0000_0000, (1 << 64) - 1])
def test_a_hint_into_the_wild_is_no_more_than_a_wrong_one(place: int) -> None:
    made = image()
    lines = "".join(f"SYMBOL(kallsyms_{n})={place:x}\n" for n in ("names", "token_table", "token_index")).encode()
    kernel = with_lines(made, lines).open()
    assert kept(kernel, "kallsyms")[-1][0] is True


def test_symbols_that_the_search_for_the_kernel_met_are_not_decoded_again() -> None:
    made = image()
    place = made.at["vmcoreinfo"]
    made.data[place : place + PAGE_SIZE] = bytes(PAGE_SIZE)
    kernel = made.open()
    assert ["by the search for the kernel" in reason for _, reason in kept(kernel, "kallsyms")] == [True]
    with pytest.raises(MissingDescription, match="VMCOREINFO"):
        _ = kernel.vmcoreinfo
    assert "VMCOREINFO in the image" not in kernel.rests_on


def test_a_lost_page_of_symbols_is_told_with_the_table() -> None:
    made = image()
    for index in range(4000):
        made.name(f"filler_{index}", RODATA + 0x3000 + index % 0x1000, "r")
    made.put_tables()
    page = -(-made.at["kallsyms_names"] // PAGE_SIZE) * PAGE_SIZE
    made.poke_image(page + PAGE_SIZE, bytes(PAGE_SIZE))
    kernel = made.open()
    assert re.search(r"; names of \d+ of \d+ symbols are lost: pages of the table", kept(kernel, "kallsyms")[-1][1])
    assert kernel.symbols.address("_stext") == TEXT


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("at", [TEXT + PAGE_SIZE, TEXT, RODATA])
def test_a_hole_in_the_kernel_s_image_does_not_hide_its_symbols(at: int, *, told: bool) -> None:
    made = image()
    if told:
        with_lines(made, hints(made))
    kernel = made.open(made.lime(at - TEXT + PHYSICAL))
    assert kernel.symbols.losses is None
    assert kernel.symbols.names == made.open().symbols.names
    assert kernel.btf.end_id > 1
    assert ("found by VMCOREINFO" if told else "found by scan") in kept(kernel, "kallsyms")[-1][1]


def test_a_hole_in_the_symbols_is_a_loss() -> None:
    made = image()
    for index in range(4000):
        made.name(f"filler_{index}", RODATA + 0x3000 + index % 0x1000, "r")
    made.put_tables()
    page = -(-made.at["kallsyms_names"] // PAGE_SIZE) * PAGE_SIZE + PAGE_SIZE - TEXT + PHYSICAL
    kernel = made.open(made.lime(page))
    assert kernel.symbols.losses is not None
    assert re.search(r"; names of \d+ of \d+ symbols are lost", kept(kernel, "kallsyms")[-1][1])


def test_types_with_a_hole_that_only_their_magic_shows_are_not_used() -> None:
    made = image()
    made.poke_image(made.at["kallsyms_token_table"], b"\xff" * 64)
    strings = b"\0" + b"name\0" * 60000
    header = b"\x9f\xeb\x01\x00" + (24).to_bytes(4, "little")
    big = header + b"".join(n.to_bytes(4, "little") for n in (0, 0, 0, len(strings))) + strings
    made.data += bytes(1 << 20)
    made.data[0x40_0000 : 0x40_0000 + len(big)] = big
    kernel = made.open(made.lime(0x41_0000))
    with pytest.raises(MissingDescription, match=r"pages of BTF at virtual .* are not in the image"):
        _ = kernel.btf


def spread() -> KernelImage:
    """With so many symbols that each of their tables has pages of its own."""
    made = image()
    for index in range(6000):
        made.name(f"filler_{index}", RODATA + 0x3000 + index % 0x1000, "r")
    made.put_tables()
    return made


def without(made: KernelImage, table: str) -> KernelImage:
    made.poke_image(made.at[table] & -PAGE_SIZE, bytes(PAGE_SIZE))
    return made


@pytest.mark.parametrize("told", [True, False])
def test_a_lost_relative_base_is_told_by_the_page_tables(*, told: bool) -> None:
    made = without(spread(), "kallsyms_relative_base")
    if not told:
        made.data[made.at["vmcoreinfo"] : made.at["vmcoreinfo"] + PAGE_SIZE] = bytes(PAGE_SIZE)
    kernel = made.open()
    assert kernel.symbols.address("_stext") == TEXT
    assert kernel.table is not None
    assert kernel.table.relative_base == TEXT
    assert "kallsyms_relative_base is lost" in kept(kernel, "kallsyms")[-1][1]


def test_a_base_that_vmcoreinfo_contradicts_is_none() -> None:
    made = without(spread(), "kallsyms_relative_base")
    place = made.at["vmcoreinfo"]
    text = bytes(made.data[place : place + PAGE_SIZE])
    other = f"_stext)={TEXT + 0x1000:x}".encode()
    made.data[place : place + PAGE_SIZE] = text.replace(f"_stext)={TEXT:x}".encode(), other)
    kernel = made.open()
    with pytest.raises(MissingDescription):
        _ = kernel.symbols
    assert "_stext is not where VMCOREINFO says" in kept(kernel, "kallsyms")[-1][1]


def test_a_lost_base_without_the_top_table_s_symbol_stays_lost() -> None:
    made = spread()
    for name in ("init_top_pgt", "swapper_pg_dir"):
        del made.symbols[name]
    made.put_tables()
    kernel = without(made, "kallsyms_relative_base").open()
    assert re.search(r"of \d,\d+ names none is the top page table", kept(kernel, "kallsyms")[-1][1])


def test_without_symbols_the_kernel_is_open_and_says_what_it_lacks() -> None:
    made = image()
    made.poke_image(made.at["kallsyms_token_table"], b"\xff" * 64)
    kernel = made.open()
    with pytest.raises(MissingDescription, match="kallsyms was not found"):
        _ = kernel.symbols
    assert "kallsyms in the image" not in kernel.rests_on


def test_an_image_without_a_kernel_is_refused_with_what_was_tried() -> None:
    with pytest.raises(MissingDescription, match=r"no VMCOREINFO and no Linux banner"):
        bare_kernel().open(read_image(memoryview(bytes(1 << 16))))
    made = image()
    made.put(made.slot(DATA), 0)
    with pytest.raises(MissingDescription, match=r"VMCOREINFO at physical .*not mapped at level 1"):
        made.open()


def test_types_are_found_without_symbols_by_their_magic() -> None:
    made = image()
    made.poke_image(made.at["kallsyms_token_table"], b"\xff" * 64)
    strings = b"\0" + b"name\0" * 60000
    header = b"\x9f\xeb\x01\x00" + (24).to_bytes(4, "little")
    big = header + b"".join(n.to_bytes(4, "little") for n in (0, 0, 0, len(strings))) + strings
    made.data += bytes(1 << 20)
    made.data[0x40_0000 : 0x40_0000 + len(big)] = big
    kernel = made.open()
    assert kept(kernel, "BTF") == [(True, "0 types")]
    assert kernel.btf.string_end == len(strings)


def test_the_end_of_the_kernels_image_is_not_needed() -> None:
    made = image()
    del made.data[PHYSICAL + RODATA - TEXT + 0x2_4000 :]
    assert made.open().symbols.address("linux_banner") == RODATA
