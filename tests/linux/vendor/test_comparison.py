"""What is in memory against what was built, piece by piece."""

import itertools
import struct

import drgn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.core.errors import MissingDescription
from hypervigil.core.facts import Gap
from hypervigil.linux.system import System
from hypervigil.linux.text.code import Code, read_code
from hypervigil.linux.text.kprobes import Probes
from hypervigil.linux.text.registry import Registry, read_registry
from hypervigil.linux.text.sites import Table
from hypervigil.linux.vendor.built import Built, Part
from hypervigil.linux.vendor.comparison import Compared, Constant, clusters, compare_data, compare_text, note_change
from hypervigil.memory.kernel import Kernel
from tests.linux.kernel_builder import TEXT, KernelImage
from tests.linux.text.world import probe
from tests.linux.vendor.shipped import MODULE_ID, ShippedKernel, ShippedModule, running

KERNEL = ShippedKernel()
AT = TEXT + 0x200


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ([], []),
        ([7], [(7, 8)]),
        ([0, 1, 2], [(0, 3)]),
        ([0, 15], [(0, 16)]),
        ([0, 16], [(0, 1), (16, 17)]),
        ([3, 5, 40, 41], [(3, 6), (40, 42)]),
    ],
)
def test_what_differs_close_together_is_one(offsets: list[int], expected: list[tuple[int, int]]) -> None:
    assert list(clusters(np.array(offsets, np.intp))) == expected


@given(st.sets(st.integers(0, 500)))
def test_every_difference_lies_in_one_cluster(offsets: set[int]) -> None:
    found = list(clusters(np.array(sorted(offsets), np.intp)))
    assert all(any(low <= one < high for low, high in found) for one in offsets)
    assert all(low in offsets and high - 1 in offsets for low, high in found)
    assert all(second[0] - first[1] >= 15 for first, second in itertools.pairwise(found))


def host() -> KernelImage:
    return running(KERNEL, ShippedModule("sample"))


def built() -> Built:
    parts = [
        Part(one.name, one.address, np.frombuffer(one.data, np.uint8).copy(), bool(one.flags & 4), bool(one.flags & 1))
        for one in KERNEL.pieces
    ]
    return Built("kernel", "what was shipped", tuple(parts))


def text(image: KernelImage, *, probes: Probes | None = None, code: Code | None = None) -> Compared:
    system = System(image.open())
    seen = code or read_code(system.kernel, "kernel", TEXT, TEXT + KERNEL.TEXT_SIZE)
    registry: Registry = read_registry(system, (seen,))
    if probes is not None:
        registry = registry._replace(probes=probes)
    made = built()
    return compare_text(system, registry, seen, made, made.tables(), system.kernel.symbols)


def test_differences_far_apart_are_told_one_by_one() -> None:
    image = host()
    for at in (AT, AT + 0x40):
        image.poke(at, b"\x90")
    assert [one.address for one in text(image).image.deviations] == [AT, AT + 0x40]


def test_a_difference_over_the_edge_of_a_site_is_no_site_s() -> None:
    image = host()
    image.poke(KERNEL.RETURN - 2, b"\x90\x90\x90")
    (one,) = text(image).image.deviations
    assert (one.kind, one.address, one.size) == ("text", KERNEL.RETURN - 2, 3)
    image = host()
    image.poke(KERNEL.RETURN, b"\x90" * 6)
    (one,) = text(image).image.deviations
    assert (one.kind, one.address, one.size) == ("text", KERNEL.RETURN, 6)


def test_a_lawful_site_explains_its_own_bytes_only() -> None:
    image = host()
    image.poke(KERNEL.RETURN, b"\xc3\xcc\xcc\xcc\xcc\x90")
    (one,) = text(image).image.deviations
    assert (one.kind, one.address, one.size) == ("text", KERNEL.RETURN + 5, 1)


def test_what_is_missing_is_not_judged() -> None:
    image = host()
    image.poke(AT, b"\x90")
    image.poke(AT + 0x40, b"\x90")
    whole = image.peek(TEXT, KERNEL.TEXT_SIZE)
    found = text(
        image,
        code=Code(
            "kernel", TEXT, whole, ((AT, AT + 0x20), (TEXT + 0x380, TEXT + 0x2000), (TEXT + 0x3000, TEXT + 0x4000))
        ),
    )
    assert [one.address for one in found.image.deviations] == [AT + 0x40]
    assert found.image.compared == KERNEL.TEXT_SIZE - 0x20 - 0x80


def test_an_int3_of_the_moment_is_passed_over() -> None:
    image = host()
    image.poke(AT, b"\xcd")
    image.poke(KERNEL.WRITE, b"\xcc")
    rewritten = Probes({}, frozenset({KERNEL.WRITE}), ())
    assert [one.address for one in text(image, probes=rewritten).image.deviations] == [AT]
    unread = Probes({}, frozenset(), (Gap("kprobes", "lost"),))
    assert [one.address for one in text(image, probes=unread).image.deviations] == [AT]
    assert [one.address for one in text(image).image.deviations] == [KERNEL.WRITE, AT]


def test_an_int3_and_more_behind_it_is_not_of_the_moment() -> None:
    image = host()
    image.poke(KERNEL.WRITE, b"\xcc\x90\x90\x90\x90\x90")
    (one,) = text(image, probes=Probes({}, frozenset({KERNEL.WRITE}), ())).image.deviations
    assert (one.address, one.size) == (KERNEL.WRITE, 6)


def test_a_registered_kprobe_is_who_changed_it() -> None:
    image = host()
    image.poke(KERNEL.WRITE, b"\xcc")
    placed = probe(KERNEL.WRITE, handler=KERNEL.READ)._replace(opcode=0x48)
    (one,) = text(image, probes=Probes({KERNEL.WRITE: placed}, frozenset(), ())).image.deviations
    assert one.owner.startswith("kprobe vfs_write")
    nobody = Probes({KERNEL.WRITE: placed._replace(handlers=(0xFFFF_FFFF_C100_0000,))}, frozenset(), ())
    (one,) = text(image, probes=nobody).image.deviations
    assert one.owner == ""


def test_a_table_that_cannot_be_understood_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Kernel.type

    def without(kernel: Kernel, name: str) -> drgn.Type:
        if name == "struct alt_instr":
            raise MissingDescription(f"type {name} was not found")
        return plain(kernel, name)

    monkeypatch.setattr(Kernel, "type", without)
    found = text(host())
    assert [gap.what for gap in found.gaps] == [".altinstructions of kernel"]
    assert found.image.deviations == ()


def test_what_a_site_depends_on_and_is_not_there_is_a_gap() -> None:
    system = System(host().open())
    code = read_code(system.kernel, "kernel", TEXT, TEXT + KERNEL.TEXT_SIZE)
    table = TEXT + 0x10_0000
    entry = struct.pack("<iiq", KERNEL.LABEL - table, KERNEL.READ - table - 4, 0x7000_0000)
    made = built()
    tables = {"__jump_table": Table(table, entry)}
    found = compare_text(system, read_registry(system, (code,)), code, made, tables, system.kernel.symbols)
    assert [gap.what for gap in found.gaps] == ["1 keys of jump labels of kernel"]


def data(image: KernelImage, name: str, built: bytes, address: int, **bounds: int) -> Compared:
    part = Part(".rodata", address, np.frombuffer(built, np.uint8), executable=False, writable=False)
    low, high = bounds.get("low", part.address), bounds.get("high", part.end)
    return compare_data(System(image.open()), name, "x", [Constant(part, low, high)])


def test_only_what_counts_is_compared() -> None:
    image = host()
    address = image.at["sample .rodata"]
    wrong = bytes(byte ^ 0xFF for byte in image.peek(address, 32))
    found = data(image, "sample", wrong, address, low=address + 8, high=address + 12)
    (one,) = found.image.deviations
    assert (one.address, one.size, found.image.compared) == (address + 8, 4, 4)
    assert data(image, "sample", wrong, address, low=address + 64, high=address + 80).image.compared == 0


def test_sorted_data_that_holds_other_entries_is_one_deviation_over_all_of_it() -> None:
    image = host()
    address = image.at["sample .rodata"]
    seen = image.peek(address, 32)
    part = Part(
        "__mcount_loc", address, np.frombuffer(seen[16:] + seen[:16], np.uint8), executable=False, writable=False
    )

    def halves(table: Table) -> bytes:
        return b"".join(sorted([table.data[:16], table.data[16:]]))

    system = System(image.open())
    same = compare_data(system, "sample", "x", [Constant(part, address, address + 32, halves)])
    assert same.image.deviations == ()
    image.poke(address, b"\x01")
    system = System(image.open())
    (one,) = compare_data(system, "sample", "x", [Constant(part, address, address + 32, halves)]).image.deviations
    assert (one.address, one.size, one.legal) == (address, 32, "the same entries in another order")


def test_sorted_data_of_which_something_is_missing_is_a_gap() -> None:
    image = host()
    address = image.at["sample .rodata"]
    part = Part("__mcount_loc", address, np.full(0x2000, 1, np.uint8), executable=False, writable=False)
    image.wipe((address & ~0xFFF) + 0x1000)
    constant = Constant(part, part.address, part.end, lambda table: table.data)
    found = compare_data(System(image.open()), "sample", "x", [constant])
    assert found.image.deviations == ()
    assert [gap.what for gap in found.gaps] == ["4,096 bytes of __mcount_loc of sample"]


def test_another_build_of_a_module_is_cited_at_its_note() -> None:
    image = host()
    system = System(image.open())
    one = note_change(system, "sample", MODULE_ID.hex(), "77" * 20)
    assert one is not None
    assert (one.address, one.size) == (image.at["sample .note.gnu.build-id"] + 16, 20)
    assert (one.found, one.expected, one.symbol) == (MODULE_ID.hex(), ("77" * 20,), "build id of sample")
    for name, found in (("nobody", "00"), ("sample", "no digits")):
        assert note_change(system, name, found, "77") is None
