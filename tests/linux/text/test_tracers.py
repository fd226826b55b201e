"""Operations registered with ftrace, and the records of its places."""

import pytest

from hypervigil.core.errors import MissingDescription
from hypervigil.linux.text.tracers import hashed, read_tracers
from tests.linux.text.world import DATA, TEXT, World, u64

PAGE, RECORDS, OPS, HASHES, HASH, BUCKETS = (DATA + 0x100 * index for index in range(1, 7))
ENTRY = DATA + 0x1000


def world() -> World:
    made = World()
    made.struct("ftrace_page", ("next", 0, 8), ("records", 8, 8), ("index", 16, 4))
    made.struct("dyn_ftrace", ("ip", 0, 8), ("flags", 8, 8))
    made.struct(
        *("ftrace_ops", ("func", 0, 8), ("next", 8, 8), ("flags", 16, 8), ("func_hash", 24, 8)),
        *(("trampoline", 32, 8), ("direct_call", 40, 8)),
    )
    made.struct("ftrace_ops_hash", ("notrace_hash", 0, 8), ("filter_hash", 8, 8))
    made.struct("ftrace_hash", ("size_bits", 0, 8), ("buckets", 8, 8))
    made.struct("ftrace_func_entry", ("hlist", 0, 8), ("ip", 16, 8), ("direct", 24, 8))
    for index, (name, target) in enumerate((("ftrace_pages_start", PAGE), ("ftrace_ops_list", OPS))):
        made.number(made.symbol(name, DATA + 0x40 + 8 * index, "D"), target)
    made.symbol("ftrace_list_end", DATA + 0x800, "D")
    made.number(DATA + 0x808, 0)
    made.number(PAGE + 8, RECORDS)
    made.number(PAGE + 16, 2, 4)
    for at, value in ((0, TEXT + 0x80), (8, 1 << 31 | 1), (16, TEXT + 0x40), (24, 0)):
        made.number(RECORDS + at, value)
    for at, value in ((0, TEXT), (8, DATA + 0x800), (16, 5), (24, HASHES), (32, TEXT + 0x100), (40, TEXT + 0x201)):
        made.number(OPS + at, value)
    made.number(HASHES + 8, HASH)
    made.number(HASH, 1)
    made.number(HASH + 8, BUCKETS)
    made.number(BUCKETS, ENTRY)
    entry(made, 0, TEXT + 0x80, following=1)
    entry(made, 1, TEXT + 0x90)
    return made


def entry(made: World, index: int, place: int, *, following: int = 0, direct: int = 0) -> None:
    at = ENTRY + 0x40 * index
    made.number(at, ENTRY + 0x40 * following if following else 0)
    made.number(at + 16, place)
    made.number(at + 24, direct)


def test_records_and_operations_are_read() -> None:
    found = read_tracers(world().kernel())
    assert (found.places.tolist(), found.flags.tolist()) == ([TEXT + 0x40, TEXT + 0x80], [0, 1 << 31 | 1])
    (one,) = found.registered
    assert (one.address, one.function, one.flags, one.trampoline, one.direct) == (
        OPS,
        TEXT,
        5,
        TEXT + 0x100,
        TEXT + 0x200,
    )
    assert one.traces(u64(TEXT + 0x40, TEXT + 0x80, TEXT + 0x90)).tolist() == [False, True, True]
    assert found.gaps == ()


def test_no_filter_means_every_place_but_the_unwanted() -> None:
    made = world()
    made.number(HASHES, HASH)
    made.number(HASHES + 8, 0)
    (one,) = read_tracers(made.kernel()).registered
    assert one.traces(u64(TEXT + 0x40, TEXT + 0x80, TEXT + 0x90)).tolist() == [True, False, False]


def test_places_that_call_a_function_directly() -> None:
    made = world()
    entry(made, 0, TEXT + 0x80, direct=TEXT + 0x301)
    made.number(made.symbol("direct_functions", DATA + 0x60, "D"), HASH)
    assert read_tracers(made.kernel()).direct == {TEXT + 0x80: TEXT + 0x300}


def test_a_kernel_without_ftrace_has_nothing_to_trace() -> None:
    found = read_tracers(World().kernel())
    assert (len(found.places), found.registered, found.gaps) == (0, (), ())


def test_what_cannot_be_read_is_a_gap() -> None:
    made = world()
    made.number(PAGE + 8, DATA + 0x100000)
    made.number(OPS + 24, DATA + 0x100000)
    found = read_tracers(made.kernel())
    assert [gap.what for gap in found.gaps] == ["records of ftrace", "operations registered with ftrace"]


@pytest.mark.parametrize(("at", "value"), [(HASH, 60), (ENTRY + 0x40, ENTRY), (ENTRY + 0x40, DATA + 0x100000)])
def test_a_hash_ends(at: int, value: int) -> None:
    made = world()
    made.number(at, value)
    with pytest.raises(MissingDescription):
        hashed(made.kernel(), HASH)


def test_a_circle_of_pages_is_a_gap() -> None:
    made = world()
    made.number(PAGE, PAGE)
    assert [gap.what for gap in read_tracers(made.kernel()).gaps] == ["records of ftrace"]
