"""Where direct branches may lead."""

from hypothesis import given
from hypothesis import strategies as st

from hypervigil.linux.text.code import read_code
from hypervigil.linux.text.landing import ranges, read_landing
from hypervigil.linux.text.thunks import Thunks
from tests.linux.text.world import DATA, MODULE, MODULE_END, TEXT, TEXT_END, WILD, World, landing, registers, u64


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))), st.lists(st.integers(0, 31)))
def test_ranges_hold_what_any_of_them_holds(pairs: list[tuple[int, int]], addresses: list[int]) -> None:
    found = ranges(pairs)
    assert (found.low < found.high).all()
    assert (found.high[:-1] < found.low[1:]).all()
    assert found.hold(u64(*addresses)).tolist() == [any(low <= a < high for low, high in pairs) for a in addresses]


def test_the_kernels_text_leads_to_itself_and_modules_to_each_other() -> None:
    found = landing(World().kernel(), made=((WILD, WILD + 0x10),))
    targets = u64(TEXT, MODULE, MODULE_END - 1, WILD, WILD + 0x10, DATA)
    assert found.lawful("kernel", targets).tolist() == [True, False, False, True, False, False]
    assert found.lawful("kvm", targets).tolist() == [True, True, False, True, False, False]


def test_foreign_is_what_is_executable_and_no_padding() -> None:
    world = World()
    world.put(WILD, b"\x90\xcc")
    found = landing(world.kernel())
    assert found.foreign("kvm", u64(WILD, WILD + 1, DATA, MODULE, 0)).tolist() == [True, False, False, False, False]


def test_holes_begin_with_padding_and_end_at_a_symbol() -> None:
    world = World()
    world.put(TEXT, b"\x55" * 0x4000)
    world.symbol("first", TEXT)
    world.put(TEXT + 0x108, b"\xcc" * 0x20)
    world.symbol("second", TEXT + 0x180)
    world.put(TEXT + 0x200, bytes(8))
    world.put(TEXT + 0x300, b"\x90" * 0x10)
    system = world.system()
    code = read_code(system.kernel, "kernel", TEXT, TEXT_END)
    found = read_landing(system, Thunks((), u64(), registers(), {"kvm": ((WILD, WILD + 0x1000),)}), [code])
    where = u64(TEXT + 0x107, TEXT + 0x108, TEXT + 0x170, TEXT + 0x180, TEXT + 0x204, TEXT + 0x2FF, TEXT + 0x310, WILD)
    assert found.lawful("kernel", where).tolist() == [True, False, False, True, True, True, False, True]
    assert found.executable.hold(u64(TEXT, WILD, DATA)).tolist() == [True, True, False]


def test_padding_that_a_jump_leads_over_is_no_hole() -> None:
    for jump, hole in ((b"\xeb\x20", False), (b"\xeb\xf0", True), (b"\xe9\x00\x01\x00\x00", False), (b"\xc3", True)):
        world = World()
        world.put(TEXT, b"\x55" * 0x4000)
        world.symbol("first", TEXT)
        world.put(TEXT + 0x105, b"\xcc" * 0x20)
        world.put(TEXT + 0x105 - len(jump), jump)
        world.symbol("second", TEXT + 0x400)
        system = world.system()
        code = read_code(system.kernel, "kernel", TEXT, TEXT_END)
        found = read_landing(system, Thunks((), u64(), registers()), [code])
        assert found.lawful("kernel", u64(TEXT + 0x200)).tolist() == [not hole], jump


def test_padding_of_a_page_that_is_missing_is_no_hole() -> None:
    world = World()
    world.put(TEXT, b"\x55" * 0x4000)
    del world.pages[TEXT + 0x1000]
    system = world.system()
    code = read_code(system.kernel, "kernel", TEXT, TEXT_END)
    found = read_landing(system, Thunks((), u64(), registers()), [code])
    assert found.lawful("kernel", u64(TEXT + 0x2000)).tolist() == [True]


def test_where_modules_are_unknown_only_slack_is_certainly_nobodys() -> None:
    found = landing(World().kernel())._replace(complete=False, known=ranges([(TEXT, TEXT_END), (MODULE, MODULE_END)]))
    targets = u64(WILD, MODULE_END - 1, MODULE)
    assert found.refuses("kvm", targets).tolist() == [False, True, False]
    assert found.refuses("kernel", targets).tolist() == [False, True, True]


def test_text_without_symbols_has_no_holes() -> None:
    world = World()
    world.module("kvm", (MODULE, 0x10, "kvm_init"))
    system = world.system()
    system._symbols["kvm"] = None
    found = read_landing(system, Thunks((), u64(), registers()), [read_code(system.kernel, "kvm", MODULE, MODULE_END)])
    assert found.lawful("kvm", u64(MODULE_END - 1)).tolist() == [True]


def test_nothing_leads_to_replacements_of_alternatives() -> None:
    world = World()
    world.put(MODULE, b"\x55" * 0x2000)
    world.module("kvm", (MODULE, 0x100, "kvm_init"))
    system = world.system()
    code = read_code(system.kernel, "kvm", MODULE, MODULE_END)
    copied = {"kvm": (MODULE + 0x100, MODULE + 0x120), "another": (TEXT, TEXT_END)}
    found = read_landing(system, Thunks((), u64(), registers()), [code], copied)
    where = u64(MODULE + 0xFF, MODULE + 0x100, MODULE + 0x11F, MODULE + 0x120)
    assert found.lawful("kvm", where).tolist() == [True, False, False, True]
