import struct

import pytest

from hypervigil.core.facts import Gap
from hypervigil.core.units import PhysAddr
from hypervigil.linux.identity import Said, each_said
from hypervigil.linux.system import System
from hypervigil.memory.reader import Reader
from tests.linux.host_builder import host, system_of
from tests.linux.kernel_builder import BUILD_ID, PHYSICAL, RELEASE, TEXT, KernelImage


def said(image: KernelImage, memory: Reader | None = None, *use: str) -> tuple[dict[str, dict[str, str]], list[Gap]]:
    """Claims as ``{subject: {source: value}}``, after the types `use` were used, and gaps."""
    system = system_of(image, memory)
    for name in use:
        system.kernel.type(name)
    return gathered(system)


def gathered(system: System) -> tuple[dict[str, dict[str, str]], list[Gap]]:
    claims: dict[str, dict[str, str]] = {}
    gaps = []
    for item in each_said(system):
        if isinstance(item, Said):
            claims.setdefault(item.subject, {})[item.source] = item.value
        else:
            gaps.append(item)
    return claims, gaps


def test_a_sound_kernel_says_one_thing_of_each() -> None:
    claims, gaps = said(host())
    assert gaps == []
    assert {subject: values for subject, values in claims.items() if len(set(values.values())) > 1} == {}
    assert claims["release"] == dict.fromkeys(("VMCOREINFO", "linux_banner", "init_uts_ns"), RELEASE)
    assert claims["build id"] == dict.fromkeys(("VMCOREINFO", "kernel notes"), BUILD_ID.hex())
    assert claims["KASLR offset"] == dict.fromkeys(("VMCOREINFO", "kallsyms"), "0x0")
    assert set(claims["phys_base"]) == {"VMCOREINFO", "the variable", "page tables"}
    assert claims["address of _stext"] == dict.fromkeys(("VMCOREINFO", "kallsyms"), f"{TEXT:#x}")
    assert claims["physical address of _stext"] == {"swapper_pg_dir": f"{PHYSICAL:#x}"}
    assert set(claims["size of list_head"]) == set(claims["offset of list_head.next"]) == {"VMCOREINFO", "BTF"}


def cited(image: KernelImage, item: Said) -> bytes:
    assert item.span
    return b"".join(image.data[span.start : span.end] for span in item.span)


def test_a_line_of_vmcoreinfo_is_cited_whole_and_its_value_by_address() -> None:
    image = host()
    items = [item for item in each_said(system_of(image)) if isinstance(item, Said) and item.source == "VMCOREINFO"]
    lines = {cited(image, item).decode() for item in items}
    assert {f"OSRELEASE={RELEASE}", f"BUILD-ID={BUILD_ID.hex()}", "SIZE(list_head)=16", "KERNELOFFSET=0"} <= lines
    for item in items:
        line = cited(image, item)
        value = line.partition(b"=")[2]
        assert b"\n" not in line
        assert item.address is not None
        assert image.peek(item.address, len(value)) == value


def test_what_kallsyms_says_is_cited_where_it_stands() -> None:
    image = host()
    rows = sorted((address, letter + name) for name, (address, letter) in image.symbols.items())
    for item in each_said(system_of(image)):
        if isinstance(item, Said) and item.source == "kallsyms" and item.subject.startswith("address of "):
            name = item.subject.removeprefix("address of ")
            position = next(i for i, (_, spelled) in enumerate(rows) if spelled[1:] == name)
            assert item.address == image.at["kallsyms_offsets"] + 4 * position
            assert cited(image, item) == image.peek(item.address, 4)


def test_what_types_say_is_cited_where_they_describe_it() -> None:
    image = host()
    (size,) = [
        item
        for item in each_said(system_of(image))
        if isinstance(item, Said) and (item.subject, item.source) == ("size of list_head", "BTF")
    ]
    assert cited(image, size)[4:12] == struct.pack("<II", 0x0400_0002, 16)
    assert size.address is not None
    assert image.peek(size.address + 4, 8) == struct.pack("<II", 0x0400_0002, 16)


def test_symbols_that_are_from_elsewhere_are_not_cited_in_the_image() -> None:
    image = host()
    system = system_of(image)
    system.kernel.use_symbols(system.kernel.symbols)
    found = [item for item in each_said(system) if isinstance(item, Said) and item.source == "kallsyms"]
    assert found
    assert all((item.span, item.address) == ((), None) for item in found)


def disputed(image: KernelImage, memory: Reader | None = None, *use: str) -> set[str]:
    return {subject for subject, values in said(image, memory, *use)[0].items() if len(set(values.values())) > 1}


def rewrite(image: KernelImage, old: bytes, new: bytes) -> None:
    """Change VMCOREINFO in place."""
    at = image.data.index(old, image.at["vmcoreinfo"])
    assert len(old) == len(new)
    image.data[at : at + len(new)] = new


@pytest.mark.parametrize(
    ("old", "new", "subject"),
    [
        (b"OSRELEASE=6.12", b"OSRELEASE=6.11", "release"),
        (b"BUILD-ID=0001", b"BUILD-ID=0002", "build id"),
        (b"SIZE(list_head)=16", b"SIZE(list_head)=24", "size of list_head"),
        (b"OFFSET(list_head.next)=0", b"OFFSET(list_head.next)=8", "offset of list_head.next"),
        (b"KERNELOFFSET=0", b"KERNELOFFSET=4", "KASLR offset"),
    ],
)
def test_a_line_of_vmcoreinfo_that_was_changed_is_disputed(old: bytes, new: bytes, subject: str) -> None:
    image = host()
    rewrite(image, old, new)
    assert disputed(image) == {subject}


def test_an_address_that_kallsyms_has_elsewhere_is_disputed() -> None:
    image = host()
    old = f"SYMBOL(init_uts_ns)={image.symbols['init_uts_ns'][0]:x}".encode()
    rewrite(image, old, old[:-1] + (b"8" if old[-1:] != b"8" else b"0"))
    assert disputed(image) == {"address of init_uts_ns"}


def test_a_member_that_types_lack_is_disputed() -> None:
    image = host()
    rewrite(image, b"OFFSET(list_head.next)", b"OFFSET(list_head.nxet)")
    claims, _ = said(image)
    assert claims["offset of list_head.nxet"] == {"VMCOREINFO": "0", "BTF": "no such member"}


def test_a_structure_that_types_lack_says_nothing() -> None:
    image = host()
    rewrite(image, b"SIZE(list_head)", b"SIZE(tsil_head)")
    assert disputed(image) == set()


def test_two_copies_of_vmcoreinfo_that_differ_are_disputed() -> None:
    image = host()
    frame = image.frame()
    at = image.at["vmcoreinfo"]
    copy = bytes(image.data[at : at + 4096])
    image.data[frame : frame + 4096] = copy
    assert disputed(image) == set()
    image.data[frame : frame + 4096] = copy.replace(b"SIZE(list_head)=16", b"SIZE(list_head)=17")
    assert "text of VMCOREINFO" in disputed(image)


def test_a_line_that_comes_twice_with_two_values_is_disputed() -> None:
    image = host()
    at = image.at["vmcoreinfo"]
    raw = bytes(image.data[at : at + 4096]).rstrip(b"\0")
    image.data[at : at + len(raw) + 22] = raw + b"BUILD-ID=deadbeef0000\n"
    claims, _ = said(image)
    odd = [subject for subject in claims if subject.startswith("VMCOREINFO: ")]
    assert len(odd) == 1
    assert claims[odd[0]] == {"its first line": "one value", "a later line": "another value"}


def test_registers_that_map_the_kernel_elsewhere_are_disputed() -> None:
    image = host()
    assert disputed(image, image.cores((image.root, 0), (image.root, 0))) == set()
    root = image.root
    image.root = PhysAddr(image.frame())
    image.map(TEXT, PHYSICAL + 0x1000, executable=True, writable=False)
    other, image.root = image.root, root
    claims, _ = said(image, image.cores((root, 0), (other, 0)))
    assert claims["physical address of _stext"] == {
        "swapper_pg_dir": f"{PHYSICAL:#x}",
        "CR3 of CPU 0": f"{PHYSICAL:#x}",
        "CR3 of CPU 1": f"{PHYSICAL + 0x1000:#x}",
    }


def test_a_banner_that_is_none_is_a_gap() -> None:
    image = host()
    image.poke(image.symbols["linux_banner"][0], b"Minix")
    _, gaps = said(image)
    assert [gap.what for gap in gaps] == ["linux_banner"]


@pytest.mark.parametrize("size", [-8, 0, 4097])
def test_notes_of_an_impossible_size_are_a_gap(size: int) -> None:
    image = host()
    image.name("__stop_notes", image.symbols["__start_notes"][0] + size, "r")
    image.put_tables()
    _, gaps = said(image)
    assert gaps == [Gap("kernel notes", "the notes' symbols were not found")]


def test_other_notes_are_passed_over() -> None:
    image = host()
    other = struct.pack("<III", 6, 5, 0x101) + b"Linux\0\0\0" + b"12345\0\0\0"
    own = struct.pack("<III", 4, 20, 3) + b"GNU\0" + BUILD_ID
    start = image.put_in("rodata", other + own + b"\0" * 8, "other_notes", 4)
    image.name("__start_notes", start, "r")
    image.name("__stop_notes", start + len(other + own) + 8, "r")
    image.put_tables()
    assert said(image)[0]["build id"]["kernel notes"] == BUILD_ID.hex()


@pytest.mark.parametrize(
    ("source", "symbols"),
    [
        ("linux_banner", ["linux_banner"]),
        ("init_uts_ns", ["init_uts_ns"]),
        ("kernel notes", ["__start_notes"]),
        ("kallsyms", ["phys_base"]),
    ],
)
def test_a_source_whose_symbols_are_lost_is_a_gap(source: str, symbols: list[str]) -> None:
    image = host()
    for symbol in symbols:
        image.symbols.pop(symbol)
    image.put_tables()
    assert source in {gap.what for gap in said(image)[1]}


def test_a_layout_that_a_compiler_makes_is_not_disputed() -> None:
    assert said(host(), None, "struct module")[0]["layout of struct module"] == dict.fromkeys(
        ("BTF", "the rules of C"), "as a compiler makes it"
    )


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ((8, 0), "overlaps the one before it"),
        ((8, 8 * 4096), "bytes of nothing before member prev"),
        ((8, 8 * 12), "its members end at 20, it has 16 bytes"),
    ],
)
def test_what_no_compiler_would_do_is_said(damage: tuple[int, int], says: str) -> None:
    image = host()
    content = bytearray(image.types.btf)
    second = content.index(struct.pack("<II", 0x0400_0002, 16)) + 8 + 12  # a structure of two members and 16 bytes
    struct.pack_into("<I", content, second + damage[0], damage[1])
    image.poke_image(image.symbols["__start_BTF"][0], bytes(content))
    claims, _ = said(image, None, "struct list_head")
    assert says in claims["layout of struct list_head"]["BTF"]
    assert misplaced(image) == image.symbols["__start_BTF"][0] + second + 8


def misplaced(image: KernelImage) -> int | None:
    """Where the offset of the member stands that is misplaced in a list head."""
    system = system_of(image)
    system.kernel.type("struct list_head")
    (item,) = [
        item
        for item in each_said(system)
        if isinstance(item, Said) and (item.subject, item.source) == ("layout of struct list_head", "BTF")
    ]
    return item.address


def test_of_two_members_that_overlap_the_first_is_misplaced_if_there_is_room_before_it() -> None:
    image = host()
    content = bytearray(image.types.btf)
    first = content.index(struct.pack("<II", 0x0400_0002, 16)) + 8
    struct.pack_into("<I", content, first + 8, 64)
    image.poke_image(image.symbols["__start_BTF"][0], bytes(content))
    assert misplaced(image) == image.symbols["__start_BTF"][0] + first + 8


def test_a_member_whose_type_cannot_be_is_said() -> None:
    image = host()
    content = bytearray(image.types.btf)
    second = content.index(struct.pack("<II", 0x0400_0002, 16)) + 8 + 12
    struct.pack_into("<I", content, second + 4, 1 << 30)
    image.poke_image(image.symbols["__start_BTF"][0], bytes(content))
    claims, _ = said(image, None, "struct list_head")
    assert "the type of member prev cannot be" in claims["layout of struct list_head"]["BTF"]
