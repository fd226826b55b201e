"""Thunks for returns and indirect branches."""

from hypervigil.linux.text.thunks import Thunks, counted, read_thunks
from tests.linux.text.world import DATA, MODULE, TEXT, WILD, World, registers, u64

BUILT_IN, CHOSEN = TEXT + 0x100, TEXT + 0x200


def world_with(selected: int) -> World:
    world = World()
    world.symbol("__x86_return_thunk", BUILT_IN)
    world.symbol("srso_return_thunk", CHOSEN)
    world.symbol("vfs_read", TEXT + 0x300)
    world.symbol("x86_return_thunk", DATA, "D")
    world.number(DATA, selected)
    return world


def test_the_chosen_return_thunk_comes_first() -> None:
    assert read_thunks(world_with(CHOSEN).system()).returns == (CHOSEN, BUILT_IN)


def test_a_return_thunk_that_is_none_does_not_count() -> None:
    for forged in (TEXT + 0x300, CHOSEN + 1, WILD, 0):
        assert read_thunks(world_with(forged).system()).returns == (BUILT_IN,)


def test_a_kernel_without_thunks_has_none() -> None:
    found = read_thunks(World().system())
    assert (found.returns, found.indirect.tolist()) == ((), [])


def test_indirect_thunks_are_known_by_name() -> None:
    world = World()
    world.symbol("__x86_indirect_thunk_rax", TEXT + 0x40)
    world.symbol("__x86_indirect_call_thunk_r15", TEXT + 0x80)
    world.symbol("__x86_indirect_anything", TEXT + 0xC0)
    thunks = read_thunks(world.system())
    assert thunks.serves("kernel", u64(TEXT + 0x40, TEXT + 0x41, TEXT + 0x80, TEXT + 0xC0)).tolist() == [1, 0, 1, 0]


def test_pages_of_thunks_serve_their_owner_only() -> None:
    world = World()
    world.struct("its_array", ("pages", 0, 8), ("num", 8, 4))
    world.symbol("its_pages", DATA + 0x100, "D")
    world.number(DATA + 0x100, DATA + 0x200)
    world.number(DATA + 0x108, 1, 4)
    world.number(DATA + 0x200, WILD)
    world.struct("module", ("arch.its_pages.pages", 0x40, 8), ("arch.its_pages.num", 0x48, 4))
    thunks = read_thunks(world.system())
    targets = u64(WILD, WILD + 0xFFF, WILD + 0x1000)
    assert thunks.serves("kernel", targets).tolist() == [True, True, False]
    assert thunks.serves("kvm", targets).tolist() == [False, False, False]


def test_pages_of_a_module_are_read_in_every_form() -> None:
    for array, count in (("its_page_array", "its_num_pages"), ("arch.its_pages.pages", "arch.its_pages.num")):
        world = World()
        module = world.module("kvm", (MODULE, 0x100, "kvm_init"))
        world.struct("module", (array, 0x40, 8), (count, 0x48, 4))
        world.number(module.address + 0x40, DATA + 0x200)
        world.number(module.address + 0x48, 1, 4)
        world.number(DATA + 0x200, WILD)
        assert read_thunks(world.system()).pages == {"kvm": ((WILD, WILD + 0x1000),)}


def test_code_that_counts_calls() -> None:
    world = World()
    world.put(TEXT + 0x100, b"\x65\x48\xc1\x3c\x25\x01\x02\x03\x04\x05")
    space = world.kernel().space
    targets, functions = u64(TEXT + 0x100, TEXT + 0x100, TEXT + 0x200), u64(TEXT + 0x10A, TEXT + 0x109, TEXT + 0x20A)
    assert counted(space, targets, functions).tolist() == [True, False, False]
    assert Thunks((), u64(), registers()).serves("kernel", targets).tolist() == [False] * 3


def test_nops_before_a_function_are_the_function() -> None:
    world = World()
    world.put(TEXT + 0x100, b"\x90" * 9)
    world.put(TEXT + 0x200, b"\x90" * 8 + b"\x91")
    found = counted(world.kernel().space, u64(TEXT + 0x100, TEXT + 0x200), u64(TEXT + 0x109, TEXT + 0x209))
    assert found.tolist() == [True, False]


def test_a_thunk_branches_to_its_register() -> None:
    world = World()
    world.symbol("__x86_indirect_its_thunk_r8", TEXT + 0x40)
    world.symbol("__x86_indirect_thunk_rcx", TEXT + 0x80)
    thunks = read_thunks(world.system())
    assert thunks.register(u64(TEXT + 0x40, TEXT + 0x80, TEXT + 0xC0)).tolist() == [8, 1, -1]
    assert Thunks((), u64(), registers()).register(u64(TEXT)).tolist() == [-1]
