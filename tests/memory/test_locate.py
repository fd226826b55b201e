import pytest

from hypervigil.core.units import PAGE_SIZE
from hypervigil.memory.locate import Search, locate_kernel
from hypervigil.memory.open import read_image
from tests.decode.kallsyms_encoder import encode
from tests.decode.test_lime import lime
from tests.linux.kernel_builder import DATA, MAP, PHYSICAL, RELEASE, TEXT, KernelImage, bare_kernel

BASE = (PHYSICAL - (TEXT - MAP)) % (1 << 64)


def kernel(levels: int = 4) -> KernelImage:
    image = bare_kernel(levels)
    image.finish()
    return image


def without_info(image: KernelImage) -> KernelImage:
    place = image.at["vmcoreinfo"]
    image.data[place : place + PAGE_SIZE] = bytes(PAGE_SIZE)
    return image


def info_of(image: KernelImage) -> bytes:
    place = image.at["vmcoreinfo"]
    return bytes(image.data[place : place + PAGE_SIZE])


def found(image: KernelImage) -> Search:
    return locate_kernel(image.raw())


def reasons(search: Search) -> list[tuple[str, bool, str]]:
    return [(c.what, c.kept, c.reason) for c in search.candidates]


@pytest.mark.parametrize("levels", [4, 5])
def test_vmcoreinfo_leads_to_the_tables(levels: int) -> None:
    image = kernel(levels)
    location = found(image).location
    assert location is not None
    assert (location.root, location.levels, location.phys_base) == (image.root, levels, BASE)
    assert location.vmcoreinfo is not None
    assert (location.vmcoreinfo[0].osrelease, location.vmcoreinfo[1]) == (RELEASE, image.at["vmcoreinfo"])


def test_the_note_24_bytes_into_a_page_is_found_too() -> None:
    image = kernel()
    place, text = image.at["vmcoreinfo"], info_of(image)
    image.data[place : place + PAGE_SIZE] = (bytes(24) + text)[:PAGE_SIZE]
    location = found(image).location
    assert location is not None
    assert location.vmcoreinfo is not None
    assert location.vmcoreinfo[1] == place + 24


def test_elsewhere_in_a_page_it_is_a_stale_copy_and_not_looked_at() -> None:
    image = kernel()
    place, text = image.at["vmcoreinfo"], info_of(image)
    image.data[place : place + PAGE_SIZE] = (bytes(256) + text)[:PAGE_SIZE]
    search = found(image)
    assert [c.what for c in search.candidates] == ["linux_banner"]
    assert search.others == ()


def test_a_second_copy_is_kept_for_comparison() -> None:
    image = kernel()
    frame = image.frame()
    image.data[frame : frame + PAGE_SIZE] = info_of(image).replace(RELEASE.encode(), b"6.12.0-9-fake")
    search = found(image)
    assert reasons(search) == [
        ("VMCOREINFO", True, "its page tables map themselves"),
        ("VMCOREINFO", False, "a second copy; compared with the first"),
    ]
    assert [(info.osrelease, at) for info, at in search.others] == [("6.12.0-9-fake", frame)]


@pytest.mark.parametrize("whole", [True, False])
def test_copies_come_in_the_same_order_however_memory_is_cut(*, whole: bool) -> None:
    image = kernel()
    text = info_of(image)
    early, late = sorted((image.frame(), image.frame()))
    image.data[early : early + PAGE_SIZE] = (bytes(24) + text)[:PAGE_SIZE]
    image.data[late : late + PAGE_SIZE] = text[:PAGE_SIZE].ljust(PAGE_SIZE, b"\0")
    image.data[image.at["vmcoreinfo"] : image.at["vmcoreinfo"] + PAGE_SIZE] = bytes(PAGE_SIZE)
    data = bytes(image.data)
    pieces = [(0, data)] if whole else [(at, data[at : at + PAGE_SIZE]) for at in range(0, len(data), PAGE_SIZE)]
    search = locate_kernel(read_image(memoryview(lime(*pieces))))
    assert search.location is not None
    assert search.location.vmcoreinfo is not None
    assert search.location.vmcoreinfo[1] == early + 24
    assert [at for _, at in search.others] == [late]


def test_a_banner_across_pages_is_passed_over() -> None:
    banner = b"Linux version 6.1.0\0"
    for at, found in ((PAGE_SIZE - 14, 1), (PAGE_SIZE - 13, 0)):
        data = (bytes(at) + banner).ljust(3 * PAGE_SIZE, b"x")
        assert len(locate_kernel(read_image(memoryview(data))).candidates) == found


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"SYMBOL(swapper_pg_dir)", b"SYMBOL(something_else)", "no swapper_pg_dir or phys_base"),
        (b"NUMBER(phys_base)", b"NUMBER(other_base)", "no swapper_pg_dir or phys_base"),
        (b"OSRELEASE", b"OSRELEASX", "vmcoreinfo"),
        (b"OSRELEASE", b"XSRELEASE", None),
        (
            f"SYMBOL(swapper_pg_dir)={DATA:x}".encode(),
            f"SYMBOL(swapper_pg_dir)={DATA + 0x1000:x}".encode(),
            "not mapped",
        ),
        (b"pgtable_l5_enabled)=0", b"pgtable_l5_enabled)=1", "not mapped at level"),
    ],
)
def test_a_text_that_does_not_lead_to_tables_is_rejected_and_the_banner_is_tried(
    old: bytes, new: bytes, why: str | None
) -> None:
    image = kernel()
    place = image.at["vmcoreinfo"]
    assert old in info_of(image)
    image.data[place : place + PAGE_SIZE] = info_of(image).replace(old, new)[:PAGE_SIZE]
    search = found(image)
    assert search.location is not None
    assert search.location.vmcoreinfo is None
    assert search.location.root == image.root
    rejected = [c for c in search.candidates if c.what == "VMCOREINFO"]
    assert [c.kept for c in rejected] == ([False] if why else [])
    assert all(why is not None and why in c.reason for c in rejected)


def test_tables_that_map_themselves_elsewhere_are_refused() -> None:
    image = without_info(kernel())
    image.map(DATA, PHYSICAL + 0x9000)
    search = found(image)
    assert search.location is None
    assert [c.reason for c in search.candidates] == ["no page table that maps itself where the symbol table says"]


@pytest.mark.parametrize("levels", [4, 5])
def test_the_banner_and_the_symbols_near_it_lead_to_the_tables(levels: int) -> None:
    image = without_info(kernel(levels))
    location = found(image).location
    assert location is not None
    assert (location.root, location.levels, location.phys_base) == (image.root, levels, BASE)
    assert location.symbols is not None
    assert "linux_banner" in location.symbols.names


def test_symbols_without_absolute_addresses_are_placed_by_the_tables() -> None:
    """The encoder takes a buffer to begin where the kernel does; so the offsets count from there."""
    image = bare_kernel()
    image.finish()
    without_info(image)
    rows = sorted((address, letter + name) for name, (address, letter) in image.symbols.items())
    start, lead = image.at["kallsyms_num_syms"] - 0x100 & -64, 64
    section = encode([(address - (start - TEXT), name) for address, name in rows], "7.0", lead)
    image.poke_image(start - 0x1000, b"\xa5" * 0x6000)
    image.poke_image(start, bytes(section.data))
    location = found(image).location
    assert location is not None
    assert location.root == image.root
    assert location.symbols is not None
    table = location.symbols
    assert int(table.addresses[table.names.index("linux_banner")]) == image.symbols["linux_banner"][0]


@pytest.mark.parametrize("lost", ["kallsyms_token_table", "kallsyms_names"])
def test_without_symbols_near_the_banner_nothing_is_found_and_that_is_said(lost: str) -> None:
    image = without_info(kernel())
    image.poke_image(image.at[lost], b"\xff" * 64)
    search = found(image)
    assert search.location is None
    assert [(c.what, c.reason) for c in search.candidates] == [("linux_banner", "no symbol table near")]


def test_a_banner_that_is_no_symbols_is_rejected() -> None:
    image = without_info(kernel())
    image.data[0x8000 : 0x8000 + 20] = b"Linux version 9.9.9 "
    search = found(image)
    assert search.location is not None
    assert (search.candidates[0].where, search.candidates[0].kept) == ("physical 0x8000", False)
    assert search.candidates[-1].kept


def test_many_copies_are_looked_at_up_to_a_limit() -> None:
    image = kernel()
    page = info_of(image).replace(b"SYMBOL(swapper_pg_dir)", b"SYMBOL(something_else)")
    search = locate_kernel(read_image(memoryview(page * 100 + bytes(PAGE_SIZE))))
    assert len([c for c in search.candidates if c.what == "VMCOREINFO"]) == 64
    assert search.location is None


def test_many_banners_are_looked_at_up_to_a_limit() -> None:
    search = locate_kernel(read_image(memoryview(b"Linux version 6.1.0\0".ljust(4096, b"x") * 100)))
    assert len(search.candidates) == 64
    assert search.location is None


def test_few_stretches_of_memory_are_searched_for_symbols() -> None:
    banner = b"Linux version 6.1.0\0".ljust(PAGE_SIZE, b"x")
    search = locate_kernel(read_image(memoryview(lime(*((n << 30, banner) for n in range(9))))))
    assert [c.reason for c in search.candidates] == ["no symbol table near"] * 4 + ["more than 4 places to search"]


def test_memory_that_begins_with_a_partial_page_is_scanned() -> None:
    assert locate_kernel(read_image(memoryview(b"OSRELEASE=6.1.0\nPAGESIZE=4096\n"))).candidates == ()


def test_a_hole_between_a_banner_and_its_symbols_does_not_part_them() -> None:
    image = without_info(kernel())
    banner = image.symbols["linux_banner"][0] - TEXT + PHYSICAL
    search = locate_kernel(image.lime(banner + PAGE_SIZE))
    assert search.location is not None
    assert search.location.symbols is not None
    assert "swapper_pg_dir" in search.location.symbols.names
    assert search.location.root == image.root
