"""Registered kprobes, and text that is being rewritten."""

from hypervigil.linux.text.kprobes import is_foreign, probe_owner, read_probes
from tests.linux.text.world import DATA, MODULE, TEXT, WILD, World, probe, rel

TABLE, FIRST, SECOND, HANDLER = DATA + 0x1000, DATA + 0x200, DATA + 0x280, TEXT + 0x300
KPROBE = (
    *(("hlist", 0, 8), ("list", 16, 8), ("back", 24, 8), ("addr", 32, 8), ("opcode", 40, 1)),
    *(("pre_handler", 48, 8), ("post_handler", 56, 8)),
)


def world() -> World:
    made = World()
    made.symbol("kprobe_table", TABLE, "D")
    made.symbol("vfs_read", TEXT + 0x40)
    made.symbol("kprobe_dispatcher", HANDLER)
    made.struct("kprobe", *KPROBE)
    made.number(TABLE + 8 * 5, FIRST)
    register(made, FIRST, TEXT + 0x44, HANDLER)
    return made


def register(made: World, at: int, place: int, handler: int) -> None:
    for offset, value in ((32, place), (40, 0x55), (48, handler), (16, at + 16), (24, at + 16)):
        made.number(at + offset, value)


def test_a_probe_is_read_with_its_handlers() -> None:
    found = read_probes(world().kernel())
    (one,) = found.at.values()
    assert (one.address, one.place, one.opcode, one.handlers) == (FIRST, TEXT + 0x44, 0x55, (HANDLER,))
    assert (found.rewritten, found.gaps) == (frozenset(), ())


def test_several_probes_at_one_place_stand_behind_one() -> None:
    made = world()
    aggregate = made.symbol("aggr_pre_handler", TEXT + 0x500)
    made.symbol("optimizing_list", DATA + 0x80, "D")
    made.struct("optimized_kprobe", ("kp", 0, 8), ("optinsn.insn", 64, 8))
    register(made, FIRST, TEXT + 0x44, aggregate)
    register(made, SECOND, TEXT + 0x44, WILD)
    for at, value in (
        (FIRST + 16, SECOND + 16),
        (FIRST + 24, SECOND + 16),
        (SECOND + 16, FIRST + 16),
        (SECOND + 24, FIRST + 16),
    ):
        made.number(at, value)
    made.number(FIRST + 64, WILD + 0x40)
    (one,) = read_probes(made.kernel()).at.values()
    assert (one.handlers, one.slot) == ((aggregate, WILD), WILD + 0x40)


def test_a_kernel_without_kprobes_has_none() -> None:
    found = read_probes(World().kernel())
    assert (found.at, found.gaps) == ({}, ())


def test_a_table_that_cannot_be_read_is_a_gap() -> None:
    made = World()
    made.symbol("kprobe_table", DATA + 0x100000, "D")
    assert [gap.what for gap in read_probes(made.kernel()).gaps] == ["kprobes"]


def test_a_circle_of_probes_is_a_gap() -> None:
    made = world()
    made.number(FIRST, FIRST)
    assert [gap.what for gap in read_probes(made.kernel()).gaps] == ["kprobe_table"]


def test_an_armed_probe_explains_its_own_bytes() -> None:
    at = TEXT + 0x44
    one = probe(at, slot=WILD)
    assert one.explains(b"\xcc" * 5, at)
    assert one.explains(b"\x90" + rel(b"\xe9", at, WILD), at - 1)
    assert not one.explains(rel(b"\xe9", at, WILD + 1), at)
    assert not one.explains(b"\x90" * 5, at)
    assert not one.explains(b"\xcc" * 5, at + 1)
    assert not probe(at).explains(rel(b"\xe9", at, WILD), at)


def test_a_probe_is_named_and_a_foreign_handler_noticed() -> None:
    made = world()
    made.module("kvm", (MODULE, 0x100, "kvm_init"))
    system = made.system()
    assert (
        probe_owner(system, probe(TEXT + 0x44, handler=HANDLER)) == "kprobe vfs_read+0x4, handled by kprobe_dispatcher"
    )
    assert [is_foreign(system, probe(TEXT, handler=h)) for h in (HANDLER, MODULE, WILD)] == [False, False, True]


def test_places_that_are_being_rewritten_old_and_new() -> None:
    old = World()
    old.symbol("bp_desc", DATA + 0x100, "D")
    old.struct("bp_patching_desc", ("vec", 0, 8), ("nr_entries", 8, 4), ("refs.counter", 12, 4))
    old.struct("text_poke_loc", ("rel_addr", 0, 4), ("disp", 4, 4))
    for at, value, size in ((0x100, DATA + 0x200, 8), (0x108, 1, 4), (0x10C, 1, 4), (0x200, 0x40, 4), (0x208, 0x99, 4)):
        old.number(DATA + at, value, size)
    assert read_probes(old.kernel()).rewritten == {TEXT + 0x40}
    old.number(DATA + 0x10C, 0, 4)
    assert read_probes(old.kernel()).rewritten == frozenset()
    new = World()
    new.symbol("text_poke_array", DATA + 0x100, "D")
    new.struct("smp_text_poke_array", ("vec", 0, 8), ("nr_entries", 0x80, 4))
    new.struct("smp_text_poke_loc", ("rel_addr", 0, 4), ("disp", 4, 12))
    new.number(DATA + 0x110, 0x50, 4)
    new.number(DATA + 0x180, 2, 4)
    assert read_probes(new.kernel()).rewritten == {TEXT, TEXT + 0x50}
