"""What a comparison says of patch sites."""

import numpy as np
import pytest

from hypervigil.facts.code import Deviation, SiteCount
from hypervigil.linux.system import System
from hypervigil.linux.text.code import Code, Mask
from hypervigil.linux.text.deviations import (
    MAX_DEVIATIONS,
    Judged,
    bounded,
    covering_probe,
    each_probe,
    judge_sites,
    named,
)
from hypervigil.linux.text.kprobes import Probe, Probes
from hypervigil.linux.text.sites import Sites
from tests.linux.text.world import DATA, TEXT, TEXT_END, WILD, World, probe, rel, u64

SITE, OTHER = TEXT + 0x40, TEXT + 0x80


def world(text: bytes = b"\xe8\x01\x02\x03\x04") -> tuple[System, Code]:
    made = World()
    made.symbol("vfs_read", TEXT + 0x40)
    made.put(SITE, text)
    system = made.system()
    return system, Code("kernel", TEXT, system.kernel.space.read(TEXT, TEXT_END - TEXT))  # type: ignore[arg-type] # a virtual address


def sites(kind: str, lawful: list[bool], *address: int, size: int = 5, owners: dict[int, str] | None = None) -> Sites:
    good: Mask = np.array(lawful, np.bool_)
    width = np.full(len(address), size, np.int64)
    return Sites(kind, u64(*address), width, (("nop", good),), "a nop", lambda _: (b"\x90",), owners or {})


def probes(*found: Probe, rewritten: frozenset[int] = frozenset()) -> Probes:
    return Probes({one.place: one for one in found}, rewritten, ())


def judged(*said: Sites, text: bytes = b"\xe8\x01\x02\x03\x04", found: Probes | None = None) -> Judged:
    system, code = world(text)
    return judge_sites(system, code, said, found or probes())


def test_a_site_without_a_legal_value_is_a_deviation_with_its_bytes() -> None:
    found = judged(sites("ftrace", [False, True], SITE, OTHER))
    assert found.counts == (SiteCount("ftrace", "nop", 1),)
    (one,) = found.deviations
    assert (one.kind, one.address, one.symbol, one.found) == ("ftrace", SITE, "vfs_read", "e801020304")
    assert (one.expected, one.legal, one.owner, one.span[0].size) == (("90",), "a nop", "", 5)
    assert found.known.tolist() == [SITE, OTHER]


def test_a_place_of_two_mechanisms_is_lawful_if_it_is_for_one() -> None:
    bad, good = sites("return site", [False], SITE), sites("static call", [True], SITE)
    assert judged(bad, good).deviations == judged(good, bad).deviations == ()


def test_a_place_within_a_lawful_one_is_lawful() -> None:
    inner = sites("lock prefix", [False], SITE + 3, size=1)
    assert judged(inner, sites("alternative", [True], SITE, size=8)).deviations == ()
    assert len(judged(inner, sites("alternative", [True], SITE, size=3)).deviations) == 1


def test_a_place_that_two_find_foreign_is_told_once() -> None:
    assert len(judged(sites("static call", [False], SITE), sites("return site", [False], SITE)).deviations) == 1


def test_an_int3_of_the_moment_is_no_deviation() -> None:
    said = sites("jump label", [False], SITE)
    found = judged(said, text=b"\xcc\x01", found=probes(rewritten=frozenset({SITE})))
    assert (found.deviations, found.counts) == ((), (SiteCount("jump label", "being rewritten", 1),))
    assert len(judged(said, text=b"\xcc\x01").deviations) == 1
    assert len(judged(said, found=probes(rewritten=frozenset({SITE}))).deviations) == 1


@pytest.mark.parametrize("handler", [TEXT, WILD])
def test_a_kprobe_explains_its_bytes_unless_its_handler_is_foreign(handler: int) -> None:
    said = sites("return site", [False], SITE)
    (one,) = judged(said, text=b"\xcc\x01", found=probes(probe(SITE, handler=handler))).deviations
    assert one.owner == ("kprobe vfs_read, handled by _stext" if handler == TEXT else "")


def test_a_jump_of_a_probe_reaches_into_the_site_behind_it() -> None:
    system, code = world(rel(b"\xe9", SITE, WILD))
    mine = probes(probe(SITE, slot=WILD))
    assert covering_probe(system, code, mine, SITE + 4, 5) is not None
    assert covering_probe(system, code, mine, SITE + 5, 5) is None


def test_users_are_named_one_by_one_or_counted() -> None:
    def used(count: int) -> list[tuple[str, str]]:
        places = [SITE + 0x10 * row for row in range(count)]
        said = sites("ftrace", [True] * count, *places, owners=dict.fromkeys(range(count), "function tracer"))
        return [(one.symbol, one.owner) for one in judged(said).deviations]

    assert len(used(8)) == 8
    assert used(9) == [("vfs_read (and 8 more)", "function tracer")]


def test_every_armed_probe_is_told() -> None:
    system, code = world(b"\xcc\x90")
    armed, foreign, disarmed = probe(SITE), probe(SITE, handler=WILD), probe(SITE + 1)
    (one,) = each_probe(system, code, probes(armed, disarmed, probe(DATA)))
    assert (one.kind, one.found, one.expected, one.owner) == (
        "kprobe",
        "cc",
        ("55",),
        "kprobe vfs_read, handled by _stext",
    )
    (one,) = each_probe(system, code, probes(foreign))
    assert one.owner == ""


def test_an_endless_list_is_cut_and_counted() -> None:
    system, code = world()
    (one,) = judge_sites(system, code, [sites("ftrace", [False], SITE)], probes()).deviations
    owned = Deviation(**{**{f: getattr(one, f) for f in one.__struct_fields__}, "owner": "kprobe"})
    many = [named(one, f"f{index}") for index in range(MAX_DEVIATIONS + 5)]
    cut = bounded([*many, owned])
    assert len(cut) == MAX_DEVIATIONS + 1
    assert [d.symbol for d in cut if "more" in d.symbol] == [f"f{MAX_DEVIATIONS - 1} (and 5 more)"]
    assert bounded([one, owned]) == (one, owned)
