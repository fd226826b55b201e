"""Branches that lead to foreign code."""

import pytest

from hypervigil.linux.text.branches import Dead, Stray, stray_branches
from hypervigil.linux.text.code import read_code
from tests.linux.text.world import MODULE, MODULE_END, TEXT, TEXT_END, WILD, World, landing, rel, u64

AT = TEXT + 0x20
STUB = b"\x90\xc3"


def strays(
    world: World, owner: str = "kernel", known: tuple[int, ...] = (), dead: tuple[Dead, ...] = ()
) -> tuple[Stray, ...]:
    system = world.system()
    low, high = (TEXT, TEXT_END) if owner == "kernel" else (MODULE, MODULE_END)
    symbols = system.symbols_of(owner)
    assert symbols is not None
    return stray_branches(
        read_code(system.kernel, owner, low, high), symbols, landing(system.kernel), u64(*known), dead
    )


def world() -> World:
    made = World()
    made.put(TEXT, b"\x90" * 0x40)
    made.symbol("vfs_read", TEXT)
    made.put(WILD, STUB)
    made.module("kvm", (MODULE, 0x40, "kvm_init"))
    made.put(MODULE, b"\x90" * 0x40)
    return made


@pytest.mark.parametrize("opcode", [b"\xe8", b"\xe9", b"\x0f\x84"])
@pytest.mark.parametrize("target", [WILD, MODULE])
def test_the_kernel_branches_to_nobody_and_to_no_module(opcode: bytes, target: int) -> None:
    made = world()
    made.put(AT, rel(opcode, AT, target))
    assert strays(made) == (Stray(AT, len(opcode) + 4, target),)


def test_a_patch_site_is_judged_as_such() -> None:
    made = world()
    made.put(AT, rel(b"\xe8", AT, WILD))
    assert strays(made, known=(AT,)) == ()


def test_bytes_that_are_no_instruction_are_none() -> None:
    made = world()
    made.put(AT, b"\x48\xb8\x00" + rel(b"\xe8", AT + 3, WILD))
    assert strays(made) == ()


def test_padding_and_data_are_no_code() -> None:
    for target in (WILD + 0x100, 0xFFFF_FFFF_8200_0000, TEXT + 0x10):
        made = world()
        made.put(AT, rel(b"\xe9", AT, target))
        assert strays(made) == ()


def test_a_module_may_branch_to_the_kernel_but_not_to_its_own_slack() -> None:
    made = world()
    made.put(MODULE_END - 0x80, STUB)
    made.put(MODULE + 0x20, rel(b"\xe8", MODULE + 0x20, TEXT))
    assert strays(made, "kvm") == ()
    made.put(MODULE + 0x28, rel(b"\xe9", MODULE + 0x28, MODULE_END - 0x80))
    made.modules[0][1].append((MODULE_END - 0x100, 0x10, "behind"))
    assert strays(made, "kvm") == (Stray(MODULE + 0x28, 5, MODULE_END - 0x80),)


def test_the_cold_part_of_a_replaced_weak_function_is_no_hook() -> None:
    made = world()
    made.put(MODULE_END - 0x80, STUB)
    made.put(MODULE + 0x28, rel(b"\xe9", MODULE + 0x28, MODULE_END - 0x80))
    made.modules[0][1][:] = [(MODULE, 0x40, "setup.cold"), (MODULE_END - 0x100, 0x10, "behind")]
    assert strays(made, "kvm") == ()


def test_dead_code_may_lead_to_freed_memory_only() -> None:
    made = world()
    made.put(MODULE + 0x28, rel(b"\xe9", MODULE + 0x28, WILD))
    freed = Dead(MODULE + 0x20, MODULE + 0x40, WILD, WILD + 0x10)
    assert strays(made, "kvm", dead=(freed,)) == ()
    for other in (freed._replace(end=MODULE + 0x28), freed._replace(low=WILD + 1)):
        assert strays(made, "kvm", dead=(other,)) == (Stray(MODULE + 0x28, 5, WILD),)


def test_the_shortest_text_has_no_branches() -> None:
    made = world()
    system = made.system()
    for size in range(1, 12):
        code = read_code(system.kernel, "kernel", TEXT, TEXT + size)
        assert stray_branches(code, system.kernel.symbols, landing(system.kernel), u64()) == ()
