import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import MissingDescription, MissingMemory
from hypervigil.core.facts import Gap
from hypervigil.core.units import PAGE_SIZE
from hypervigil.facts.pointers import Section, Target
from hypervigil.linux.system import KERNEL, Range, System
from hypervigil.memory.symbols import Losses
from tests.extract.tamperings import hidden_module
from tests.linux.c_types import CTypes, words
from tests.linux.host_builder import host, system_of
from tests.linux.kernel_builder import DATA, DATA_SIZE, FUNCTION, HEAP, RODATA, TEXT, KernelImage, lose_symbols
from tests.linux.linux_types import KERNEL as KERNEL_TYPES
from tests.linux.module_builder import FIRST

AWAY = HEAP + (1 << 41)


def test_every_range_has_an_owner_and_a_section() -> None:
    found = {(r.owner, r.section): (r.start, r.end) for r in system_of(host()).ranges}
    assert found[KERNEL, Section.TEXT][0] == TEXT
    assert found[KERNEL, Section.DATA] == (DATA, DATA + DATA_SIZE)
    assert found["kvm", Section.TEXT] == (FIRST, FIRST + PAGE_SIZE)
    assert {owner for owner, _ in found} == {KERNEL, "kvm", "kvm_amd", "dummy"}


def test_bounds_that_are_lost_or_reversed_are_no_range() -> None:
    image = host()
    image.symbols.pop("_sdata")
    image.name("__end_rodata", RODATA - 8, "R")
    image.put_tables()
    sections = {r.section for r in system_of(image).ranges if r.owner == KERNEL}
    assert sections == {Section.TEXT}


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), max_size=8, unique=True),
    st.integers(0, 110),
)
def test_an_address_belongs_to_the_innermost_range_that_holds_it(rows: list[tuple[int, int]], address: int) -> None:
    system = system_of(SHARED)
    ranges = tuple(sorted(Range(low, low + size, f"{low} {size}", Section.DATA) for low, size in rows))
    system.__dict__ |= {"ranges": ranges}
    holding = [r for r in ranges if r.start <= address < r.end]
    assert system.owner_of(address) == (max(holding) if holding else None)


SHARED = host()


def target(image: KernelImage, address: int) -> Target:
    return system_of(image).target(address)


def test_a_target_is_its_symbol_its_owner_and_its_section() -> None:
    image = host()
    start = image.symbols["asm_exc_page_fault"][0]
    assert target(image, start) == Target(
        address=start, symbol="asm_exc_page_fault", owner=KERNEL, section=Section.TEXT
    )
    assert target(image, start + 5).offset == 5
    assert target(image, image.at["dummy_init"]).owner == "dummy"
    assert target(image, image.at["kvm_x86_ops"]).section is Section.DATA
    assert str(target(image, image.at["dummy_init"] + 1)) == "dummy_init+0x1 [dummy]"
    assert system_of(image).name_of(0) == "nothing"


def test_other_symbols_at_the_place_are_aliases() -> None:
    found = target(host(), TEXT)
    assert {found.symbol, *found.aliases} == {"_stext", "_text", "__x64_sys_read"}


def test_in_text_only_functions_count() -> None:
    image = host()
    start = image.symbols["exported_one"][0]
    image.name("a_label", start, "d")
    image.put_tables()
    assert (target(image, start).symbol, target(image, start).aliases) == ("exported_one", ())
    image.name("exported_one", start, "d")
    image.put_tables()
    assert target(image, start).symbol == ""


@pytest.mark.parametrize("address", [AWAY, 0x1000, FIRST + PAGE_SIZE, FIRST - 1, (1 << 64) - 1])
def test_memory_of_nobody_has_no_owner(address: int) -> None:
    assert target(host(), address) == Target(address=address)


def test_behind_a_function_s_end_no_symbol_is_near() -> None:
    image = host()
    last = image.at["dummy_init"]
    assert target(image, last + FUNCTION - 1).symbol == "dummy_init"
    assert target(image, last + FUNCTION) == Target(address=last + FUNCTION, owner="dummy", section=Section.TEXT)


def test_a_symbol_of_another_range_is_not_near() -> None:
    image = host()
    found = target(image, image.at["module kvm"] - 0x1_0000 + 0x8000 + 8)
    assert found.section in {Section.RODATA, Section.NOWHERE}
    low = FIRST + 0x8000
    first = min(a for n, a in image.at.items() if low <= a < low + 0x4000)
    assert target(image, first).symbol
    assert target(image, DATA + DATA_SIZE - 1).symbol != "__start_rodata"


def test_while_modules_could_not_be_read_nobody_s_memory_may_be_theirs() -> None:
    image = host()
    image.member("module", hidden_module(image), "state", 9)
    system = system_of(image)
    assert system.modules.gaps == (
        Gap(f"module at {image.at['module dummy']:#x}", f"what stands at {image.at['module dummy']:#x} is no module"),
    )
    assert not system.target(AWAY).placed
    assert system.target(0).placed
    assert system.target(TEXT).placed


def test_a_module_without_symbols_places_nothing() -> None:
    image = host()
    table = image.word(image.at["module dummy"] + image.types.offset("module", "kallsyms"))
    image.member("mod_kallsyms", table, "num_symtab", 0)
    system = system_of(image)
    assert system.symbols_of("dummy") is None
    assert system.target(image.at["dummy_init"]) == Target(
        address=image.at["dummy_init"], owner="dummy", section=Section.TEXT, placed=False
    )
    assert system.symbols_of("none") is None


def test_all_views_of_modules_but_types_must_show_every_module() -> None:
    views = system_of(host()).module_views
    assert {view.name: view.complete for view in views} == {
        "module list": True,
        "address tree": True,
        "sysfs": True,
        "bug list": True,
        "type information": False,
    }


def lacking(*names: str, ranges: tuple[tuple[int, int], ...] = ()) -> System:
    """The system whose symbols lack some, which are said to be lost, and maybe others in ranges of addresses."""
    kernel = host().open()
    lose_symbols(kernel, Losses(names, ranges, tuple(sorted(kernel.symbols.names))))
    return System(kernel)


def test_a_lost_bound_of_data_leaves_that_section_without_an_owner() -> None:
    system = lacking("_edata", "__init_begin")
    assert system.unbounded == {Section.DATA, Section.INIT}
    assert {r.section for r in system.ranges if r.owner == KERNEL} == {Section.TEXT, Section.RODATA}
    assert system.target(DATA + 8) == Target(address=DATA + 8, placed=False)
    assert system.target(RODATA).section is Section.RODATA


def test_a_lost_bound_of_text_leaves_every_range_open() -> None:
    system = lacking("_etext")
    assert system.unbounded == frozenset()
    with pytest.raises(MissingDescription):
        _ = system.ranges


def test_where_a_symbol_may_be_lost_no_name_is_given() -> None:
    start = host().symbols["asm_exc_page_fault"][0]
    assert lacking("gone").target(start).symbol == "asm_exc_page_fault"
    assert lacking("gone", ranges=((start, start + 8),)).target(start + 4) == Target(
        address=start + 4, owner=KERNEL, section=Section.TEXT, placed=False
    )


def test_before_the_first_symbol_of_a_range_the_last_of_another_is_not_near() -> None:
    image = host()
    first = image.at["svm_nested_ops"]
    rows = image.at["symtab of kvm_amd"]
    place = next(rows + 24 * i + 8 for i in range(1 << 10) if image.word(rows + 24 * i + 8) == first)
    assert target(image, first).symbol == "svm_nested_ops"
    image.poke(place, words(first + 8))
    assert target(image, first) == Target(address=first, owner="kvm_amd", section=Section.RODATA)


def test_a_hidden_module_still_owns_its_memory() -> None:
    image = host()
    hidden_module(image)
    assert target(image, image.at["dummy_init"]).owner == "dummy"
    assert [m.name for m in system_of(image).modules.items] == ["dummy", "kvm", "kvm_amd"]


def test_of_two_modules_of_a_name_the_first_counts() -> None:
    image = host()
    image.member("module", image.at["module dummy"], "name", b"kvm")
    system = system_of(image)
    assert [m.name for m in system.modules.items] == ["kvm", "kvm_amd"]
    assert system.target(image.at["dummy_init"]).owner == ""


def test_a_slot_has_its_pointer_s_place_in_the_evidence() -> None:
    image = host()
    at = image.at["kvm_x86_ops"] + 16
    slot = system_of(image).slot("s", at, wanted=("a", "b"))
    assert (slot.name, slot.address, slot.target.address, slot.wanted) == ("s", at, image.word(at), ("a", "b"))
    (span,) = slot.span
    assert image.data[span.start : span.end] == words(image.word(at))
    with pytest.raises(MissingMemory):
        system_of(image).slot("s", AWAY)


def test_a_symbol_is_looked_for_in_the_order_of_owners() -> None:
    image = host()
    system = system_of(image)
    assert system.find("__this_module", "none", "kvm_amd", "kvm") == image.at["module kvm_amd"]
    assert system.find("__this_module", KERNEL) is None
    assert system.module("none") is None


def test_layouts_help_out_only_where_modules_have_no_types_by_age() -> None:
    lost = host()
    lost.member("btf", lost.at["btf of kvm"], "data", AWAY)
    assert "struct opcode" not in _known(system_of(lost))
    old = host()
    old.symbols.pop("btf_modules")
    old.put_tables()
    system = system_of(old)
    assert "struct opcode" in _known(system)
    assert [v.name for v in system.module_views] == ["module list", "address tree", "sysfs", "bug list"]
    assert "Linux 5.10 layouts shipped with Hypervigil" in system.rests_on


def _known(system: System) -> set[str]:
    found = set()
    for name in ("struct opcode", "struct kvm_device"):
        try:
            system.kernel.type(name)
        except MissingDescription:
            continue
        found.add(name)
    return found


def test_without_types_of_its_own_a_kernel_is_not_helped_out() -> None:
    image = host()
    image.symbols.pop("btf_modules")
    image.types = CTypes({"list_head": KERNEL_TYPES["list_head"]})
    image.put_tables()
    image.poke_image(image.symbols["__start_BTF"][0], bytes(8))
    assert _known(system_of(image)) == set()
