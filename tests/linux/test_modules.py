import struct

import pytest

from hypervigil.core.errors import EvidenceError, MissingDescription, MissingMemory
from hypervigil.core.facts import Gap, Observed
from hypervigil.core.units import PAGE_SIZE
from hypervigil.facts.pointers import Section
from hypervigil.linux.modules import (
    Area,
    Module,
    add_module_types,
    listed_modules,
    module_sections,
    module_symbols,
    modules_in_sysfs,
    modules_in_tree,
    modules_with_bugs,
    modules_with_types,
    read_module,
)
from tests.linux.c_types import CTypes, words
from tests.linux.host_builder import host
from tests.linux.kernel_builder import HEAP, KernelImage
from tests.linux.linux_types import KERNEL
from tests.linux.module_builder import FIRST

AWAY = HEAP + (1 << 41)
VIEWS = (listed_modules, modules_in_tree, modules_in_sysfs, modules_with_bugs)


def module_of(image: KernelImage, name: str = "kvm") -> Module:
    return read_module(image.open(), image.at[f"module {name}"])


def addresses(image: KernelImage) -> set[int]:
    return {image.at[f"module {name}"] for name in ("kvm", "kvm_amd", "dummy")}


def test_a_module_is_read_with_its_memory() -> None:
    image = host()
    found = module_of(image)
    assert (found.name, found.state, found.address) == ("kvm", "live", image.at["module kvm"])
    assert found.areas == (
        Area(FIRST, FIRST + PAGE_SIZE, Section.TEXT),
        Area(FIRST + 0x8000, FIRST + 0xC000, Section.RODATA),
        Area(FIRST + 0x10000, FIRST + 0x12000, Section.DATA),
    )
    assert found.size == image.types.size("module")


def test_an_address_is_in_one_section_or_in_none() -> None:
    found = module_of(host())
    sections = [
        found.section_at(FIRST + at) for at in (-1, 0, PAGE_SIZE - 1, PAGE_SIZE, 0x8000, 0xBFFF, 0x11FFF, 0x12000)
    ]
    text, rodata, data, nowhere = Section.TEXT, Section.RODATA, Section.DATA, Section.NOWHERE
    assert sections == [nowhere, text, text, nowhere, rodata, rodata, data, nowhere]


def test_every_kind_of_memory_has_its_section() -> None:
    image = host()
    for index in range(7):
        image.member("module", image.at["module dummy"], f"mem[{index}].base", FIRST + 0x10_0000 * index)
        image.member("module", image.at["module dummy"], f"mem[{index}].size", 0x1000)
    areas = module_of(image, "dummy").areas
    text, rodata, data, init = Section.TEXT, Section.RODATA, Section.DATA, Section.INIT
    assert [a.section for a in areas] == [text, data, rodata, rodata, init, init, init]
    assert [a.after_init for a in areas] == [False, False, False, True, False, False, False]


@pytest.mark.parametrize("size", [0, (1 << 28) + 1, 0xFFFF_FFFF])
def test_memory_of_an_impossible_size_is_none(size: int) -> None:
    image = host()
    image.member("module", image.at["module kvm"], "mem[0].size", size)
    assert Section.TEXT not in {area.section for area in module_of(image).areas}


@pytest.mark.parametrize(("state", "name"), [(0, "live"), (1, "coming"), (2, "going"), (3, "unformed")])
def test_a_module_says_its_state(state: int, name: str) -> None:
    image = host()
    image.member("module", image.at["module kvm"], "state", state)
    assert module_of(image).state == name


@pytest.mark.parametrize(("path", "value"), [("state", 4), ("state", -1), ("name", b""), ("name", b"\x01bad")])
def test_what_is_no_module_is_refused(path: str, value: int | bytes) -> None:
    image = host()
    image.member("module", image.at["module kvm"], path, value)
    with pytest.raises(MissingDescription, match="is no module"):
        module_of(image)


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_shows_every_module(view: object) -> None:
    image = host()
    found = view(image.open())  # type: ignore[operator] # each is one of those above
    assert (set(found.items), found.gaps) == (addresses(image), ())


@pytest.mark.parametrize(
    ("view", "variable", "gap"),
    [
        (listed_modules, "modules", "module list"),
        (modules_with_bugs, "module_bug_list", "bug list"),
        (modules_with_types, "btf_modules", "type information"),
    ],
)
def test_a_list_that_is_broken_is_a_gap(view: object, variable: str, gap: str) -> None:
    image = host()
    image.poke(image.word(image.symbols[variable][0]), words(AWAY))
    found = view(image.open())  # type: ignore[operator] # each is one of those above
    assert len(found.items) == 1
    assert [g.what for g in found.gaps] == [gap]


@pytest.mark.parametrize("half", [0, 1])
def test_either_half_of_the_tree_shows_a_module(half: int) -> None:
    image = host()
    tree = image.symbols["mod_tree"][0]
    image.member("mod_tree_root", tree, f"root.tree[{half}].rb_node", 0)
    assert set(modules_in_tree(image.open()).items) == addresses(image)


def test_a_tree_that_is_broken_is_a_gap_by_its_half() -> None:
    image = host()
    tree = image.symbols["mod_tree"][0]
    image.member("mod_tree_root", tree, "root.tree[1].rb_node", AWAY)
    found = modules_in_tree(image.open())
    assert set(found.items) == addresses(image)
    assert [gap.what for gap in found.gaps] == ["address tree, half 1"]


def test_what_is_built_in_is_no_module_of_sysfs() -> None:
    image = host()
    assert 0 not in modules_in_sysfs(image.open()).items


def test_modules_with_types_are_named_with_them() -> None:
    image = host()
    assert modules_with_types(image.open()).items == ((image.at["module kvm"], image.at["btf of kvm"]),)


def test_types_of_modules_become_known() -> None:
    kernel = host().open()
    with pytest.raises(MissingDescription):
        kernel.type("struct kvm_vcpu")
    assert add_module_types(kernel, ("kvm", "other")) == Observed(("kvm",))
    assert kernel.type("struct kvm_vcpu").size
    assert "BTF of kvm" in kernel.catalogue.sources


def test_types_of_modules_that_nobody_asked_for_are_left() -> None:
    assert add_module_types(host().open(), ("other",)) == Observed(())


@pytest.mark.parametrize(("path", "value"), [("data", AWAY), ("data_size", 10), ("data", HEAP + 64)])
def test_types_that_cannot_be_read_are_a_gap(path: str, value: int) -> None:
    image = host()
    image.member("btf", image.at["btf of kvm"], path, value)
    found = add_module_types(image.open(), ("kvm",))
    assert found.items == ()
    assert [gap.what for gap in found.gaps] == [f"types at {image.at['btf of kvm']:#x}"]


def test_without_the_list_of_types_there_is_a_gap() -> None:
    image = host()
    image.symbols.pop("btf_modules")
    image.put_tables()
    why = "symbol btf_modules was not found in kallsyms in the image"
    assert add_module_types(image.open(), ("kvm",)) == Observed((), (Gap("types of modules", why),))


def test_symbols_of_a_module_have_places_sizes_and_letters() -> None:
    image = host()
    found = module_symbols(image.open(), module_of(image))
    address = image.at["kvm_x86_ops"]
    position = found.names.index("kvm_x86_ops")
    assert (found.addresses[position], found.types[position]) == (address, "d")
    assert found.sizes is not None
    assert found.sizes[position] > 0
    assert found.source == "the symbols of module kvm"
    assert "" not in found.names


def test_undefined_and_nameless_symbols_are_left_out() -> None:
    image = host()
    rows = image.at["symtab of dummy"]
    whole = module_symbols(image.open(), module_of(image, "dummy"))
    assert sorted(whole.names) == ["__this_module", "dummy_init"]
    image.poke(rows + 24 + 6, struct.pack("<H", 0))
    assert list(module_symbols(image.open(), module_of(image, "dummy")).names) == ["dummy_init"]
    image.poke(rows + 48, struct.pack("<I", 0))
    assert list(module_symbols(image.open(), module_of(image, "dummy")).names) == []


def test_a_module_may_have_no_symbol_but_the_first_that_is_none() -> None:
    image = host()
    table = image.word(image.at["module kvm"] + image.types.offset("module", "kallsyms"))
    image.member("mod_kallsyms", table, "num_symtab", 1)
    assert len(module_symbols(image.open(), module_of(image))) == 0


@pytest.mark.parametrize("count", [0, (1 << 20) + 1, 0xFFFF_FFFF])
def test_an_impossible_number_of_symbols_is_refused(count: int) -> None:
    image = host()
    table = image.word(image.at["module kvm"] + image.types.offset("module", "kallsyms"))
    image.member("mod_kallsyms", table, "num_symtab", count)
    with pytest.raises(MissingDescription, match=f"keeps {count} symbols"):
        module_symbols(image.open(), module_of(image))


@pytest.mark.parametrize("path", ["symtab", "strtab", "typetab"])
@pytest.mark.parametrize("value", [0, AWAY, (1 << 64) - 16])
def test_symbols_that_are_lost_are_missing(path: str, value: int) -> None:
    image = host()
    table = image.word(image.at["module kvm"] + image.types.offset("module", "kallsyms"))
    image.member("mod_kallsyms", table, path, value)
    with pytest.raises(MissingMemory):
        module_symbols(image.open(), module_of(image))


def test_names_at_the_end_of_mapped_memory_are_read() -> None:
    image = host()
    strings = bytes(image.peek(image.at["strtab of dummy"], 64)).partition(b"dummy_init\0")
    names = strings[0] + strings[1]
    last = FIRST + 0x50_0000
    image.page(last, b"\x01" * (PAGE_SIZE - len(names)) + names)
    table = image.word(image.at["module dummy"] + image.types.offset("module", "kallsyms"))
    image.member("mod_kallsyms", table, "strtab", last + PAGE_SIZE - len(names))
    assert "dummy_init" in module_symbols(image.open(), module_of(image, "dummy")).names


def sections(image: KernelImage, **places: int) -> None:
    """Give the module a list of its sections as it was until 6.17."""
    address = image.object("module_sect_attrs", nsections=len(places))
    for index, (name, place) in enumerate(places.items()):
        text = image.heap(b"." + name.encode() + b"\0")
        image.member("module_sect_attrs", address, f"attrs[{index}].battr.attr.name", text)
        image.member("module_sect_attrs", address, f"attrs[{index}].address", place)
    image.member("module", image.at["module kvm"], "sect_attrs", address)


def test_sections_are_named_with_their_addresses() -> None:
    image = host()
    sections(image, text=FIRST, data=FIRST + 0x1_0000)
    assert module_sections(image.open(), module_of(image)) == {".text": FIRST, ".data": FIRST + 0x1_0000}


def test_a_module_without_the_list_keeps_none() -> None:
    image = host()
    with pytest.raises(MissingDescription, match="module kvm keeps no list of its sections"):
        module_sections(image.open(), module_of(image))


def test_a_list_of_sections_that_is_too_long_or_lost_ends() -> None:
    image = host()
    sections(image, text=FIRST)
    address = image.word(image.at["module kvm"] + image.types.offset("module", "sect_attrs"))
    image.member("module_sect_attrs", address, "nsections", 0xFFFF_FFFF)
    with pytest.raises(EvidenceError):
        module_sections(image.open(), module_of(image))
    image.member("module", image.at["module kvm"], "sect_attrs", AWAY)
    with pytest.raises(MissingMemory):
        module_sections(image.open(), module_of(image))


def other_types(image: KernelImage, **changed: str) -> None:
    """Replace structures of the kernel by those of another version."""
    image.types = CTypes({**KERNEL, **changed})
    image.put_tables()


def test_from_6_18_on_sections_are_attributes_of_a_group() -> None:
    image = host()
    other_types(
        image,
        attribute_group="name:ptr bin_attrs:ptr",
        module_sect_attrs="grp:attribute_group",
    )
    entries = []
    for name, place in ((b".text\0", FIRST), (b".bss\0", FIRST + 64)):
        entries.append(image.object("bin_attribute", attr__name=image.heap(name), private=place))
    group = image.object("module_sect_attrs", grp__bin_attrs=image.heap(words(*entries, 0)))
    image.member("module", image.at["module kvm"], "sect_attrs", group)
    assert module_sections(image.open(), module_of(image)) == {".text": FIRST, ".bss": FIRST + 64}


LAYOUT = "base:ptr before:u64 size:u32 text_size:u32 ro_size:u32 ro_after_init_size:u32 mtn:mod_tree_node"


def test_until_6_3_a_module_has_a_core_and_an_init_layout() -> None:
    image = host()
    other_types(
        image,
        module_layout=LAYOUT,
        module="state:u32 list:list_head name:char[56] core_layout:module_layout init_layout:module_layout "
        "kallsyms:*mod_kallsyms sect_attrs:*module_sect_attrs bug_list:list_head",
    )
    at = image.object("module", name=b"old")
    image.set("module", at, core_layout__base=FIRST, core_layout__size=0x5000, core_layout__text_size=0x2000)
    image.set("module", at, core_layout__ro_size=0x3000, core_layout__ro_after_init_size=0x4000)
    image.set("module", at, init_layout__base=FIRST + 0x8000, init_layout__size=0x1000)
    assert read_module(image.open(), at).areas == (
        Area(FIRST, FIRST + 0x2000, Section.TEXT),
        Area(FIRST + 0x2000, FIRST + 0x3000, Section.RODATA),
        Area(FIRST + 0x3000, FIRST + 0x4000, Section.RODATA, after_init=True),
        Area(FIRST + 0x4000, FIRST + 0x5000, Section.DATA),
        Area(FIRST + 0x8000, FIRST + 0x9000, Section.INIT),
    )
    image.set("module", at, core_layout__ro_size=0x1000, init_layout__size=0)
    assert [a.section for a in read_module(image.open(), at).areas] == [Section.TEXT, Section.RODATA, Section.DATA]
