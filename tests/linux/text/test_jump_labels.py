"""Jump labels against their keys."""

import pytest

from hypervigil.linux.text.code import Code
from hypervigil.linux.text.jump_labels import jump_label_sites
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import NOP5, Table
from tests.linux.text.world import DATA, TEXT, World, place, rel

AT, TARGET, KEY, TABLE = TEXT + 0x40, TEXT + 0x60, DATA + 0x100, DATA + 0x2000
NEAR, SHORT = rel(b"\xe9", AT, TARGET), b"\xeb\x1e"


def built(site: bytes, *, enabled: int, taken: bool, key: int = KEY) -> Place:
    world = World()
    world.put(AT, site)
    world.number(KEY, enabled, 4)
    world.number(KEY + 8, DATA)
    entry = (AT - TABLE).to_bytes(4, "little", signed=True)
    entry += (TARGET - TABLE - 4).to_bytes(4, "little", signed=True)
    entry += (key - TABLE - 8 | taken).to_bytes(8, "little", signed=True)
    return place(world, {"__jump_table": Table(TABLE, entry)})


@pytest.mark.parametrize(
    ("site", "enabled", "taken", "state"),
    [
        (NEAR, 1, False, "jump"),
        (SHORT, 3, False, "jump"),
        (NEAR, 0, True, "jump"),
        (NOP5[0], 0, False, "nop"),
        (NOP5[1], 0, False, "nop"),
        (b"\x66\x90", 0, False, "nop"),
        (b"\x66\x90", 1, True, "nop"),
    ],
)
def test_what_the_key_asks_for_is_lawful(site: bytes, enabled: int, taken: bool, state: str) -> None:  # noqa: FBT001 - a case
    sites = jump_label_sites(built(site, enabled=enabled, taken=taken))
    assert {name: mask.tolist() for name, mask in sites.states}[state] == [True]


@pytest.mark.parametrize(
    ("what", "site", "enabled"),
    [
        ("a jump to another place", rel(b"\xe9", AT, TARGET + 1), 1),
        ("a short jump to another place", b"\xeb\x1f", 1),
        ("a call", rel(b"\xe8", AT, TARGET), 1),
        ("a nop where the key is on", NOP5[0], 1),
        ("a jump where the key is off", NEAR, 0),
        ("something else", b"\x90\x90\x90\x90\x90", 0),
    ],
)
def test_anything_else_is_not(what: str, site: bytes, enabled: int) -> None:
    sites = jump_label_sites(built(site, enabled=enabled, taken=False))
    assert sites.lawful().tolist() == [False], what
    expected = (NEAR, NOP5[0]) if enabled else (NOP5[0],)
    assert sites.expected(0) == expected or sites.expected(0)[0] == SHORT


def test_a_key_that_is_not_there_is_told() -> None:
    sites = jump_label_sites(built(NEAR, enabled=1, taken=False, key=DATA + 0x100000))
    assert sites.lawful().tolist() == [True]
    assert sites.unseen == (("1 keys of jump labels of kernel", "not in the image"),)


def test_a_label_in_freed_memory_is_left_out() -> None:
    world = World()
    entry = (DATA - TABLE).to_bytes(4, "little", signed=True) + bytes(12)
    assert len(jump_label_sites(place(world, {"__jump_table": Table(TABLE, entry)})).address) == 0


@pytest.mark.parametrize(
    ("site", "original", "on", "lawful"),
    [
        (b"\x66\x90", b"\xeb\x30", False, True),
        (SHORT, b"\x66\x90", True, True),
        (NOP5[0], b"\x66\x90\x48\x31\xc0", False, False),
        (rel(b"\xe9", AT, TARGET), b"\x66\x90\x48\x31\xc0", True, False),
        (b"\xeb\x1e\0\0\0", NOP5[0], True, False),
        (rel(b"\xe9", AT, TARGET), NOP5[0], True, True),
        (NOP5[1], NOP5[0], False, True),
    ],
)
def test_a_site_keeps_the_size_it_was_built_with(site: bytes, original: bytes, on: bool, lawful: bool) -> None:  # noqa: FBT001 - a case
    """A longer nop would swallow what stands behind a short one."""
    made = built(site, enabled=int(on), taken=False)
    whole = bytearray(made.code.data)
    whole[AT - TEXT : AT - TEXT + len(original)] = original
    sites = jump_label_sites(made._replace(original=Code("kernel", TEXT, bytes(whole))))
    assert sites.lawful().tolist() == [lawful]
    assert sites.size.tolist() == [2 if original[:1] in {b"\x66", b"\xeb"} else 5]


def listening(count: int, *, on: bool = True, prefix: str = "__tracepoint_") -> dict[int, str]:
    """Who uses the labels of so many tracepoints, each at one place, and of a key that is something else."""
    world = World()
    entries = b""
    for number in range(count + 1):
        key, at, entry = DATA + 0x100 + 0x40 * number, AT + 8 * number, TABLE + 16 * number
        world.put(at, rel(b"\xe9", at, TARGET + 0x100) if on else NOP5[0])
        world.number(key + 8, int(on), 4)
        world.symbol(f"{prefix}{number}" if number < count else "some_key", key)
        entries += (at - entry).to_bytes(4, "little", signed=True)
        entries += (TARGET + 0x100 - entry - 4).to_bytes(4, "little", signed=True)
        entries += (key + 8 - entry - 8).to_bytes(8, "little", signed=True)
    return dict(jump_label_sites(place(world, {"__jump_table": Table(TABLE, entries)})).owners)


def test_tracepoints_that_somebody_listens_to_are_told() -> None:
    assert listening(2) == {0: "tracepoint 0", 1: "tracepoint 1"}
    assert listening(2, on=False) == {}
    assert listening(2, prefix="other_") == {}


def test_many_tracepoints_are_counted() -> None:
    assert len(set(listening(8).values())) == 8
    assert listening(9) == dict.fromkeys(range(9), "9 tracepoints")
