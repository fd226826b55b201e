from collections.abc import Callable

import pytest

from hypervigil.core.errors import EvidenceError, MissingDescription
from hypervigil.core.facts import Absent, Observed
from hypervigil.linux.files import OpenFile
from hypervigil.linux.kvm import Kvm, find_kvm
from hypervigil.linux.machines import (
    each_io_device,
    listed_machines,
    machine_objects,
    machine_of_file,
    machines_by_notifier,
    machines_running,
)
from hypervigil.linux.tasks import read_task
from tests.linux.c_types import words
from tests.linux.host_builder import host, kvm_types, system_of
from tests.linux.kernel_builder import HEAP, KernelImage

AWAY = HEAP + (1 << 41)


def kvm_of(image: KernelImage) -> Kvm:
    found = find_kvm(system_of(image))
    assert not isinstance(found, Absent)
    return found


def by_notifier(image: KernelImage) -> Observed[int]:
    kvm = kvm_of(image)
    names = ("task systemd", "task kthreadd", "task qemu", "task qemu-101")
    return machines_by_notifier(kvm, tuple(read_task(kvm.system.kernel, image.at[name]) for name in names))


VIEWS: tuple[Callable[[KernelImage], Observed[int]], ...] = (
    lambda image: listed_machines(kvm_of(image)),
    by_notifier,
    lambda image: machines_running(kvm_of(image)),
)


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_shows_the_machine_once(view: Callable[[KernelImage], Observed[int]]) -> None:
    image = host()
    assert view(image) == Observed((image.at["machine"],))


def test_notifiers_of_others_are_no_machines() -> None:
    image = host()
    image.member("mmu_notifier", image.word(image.at["subscriptions"]), "ops", image.at["dummy_init"])
    assert by_notifier(image) == Observed(())


def test_a_machine_behind_another_notifier_is_found() -> None:
    image = host()
    first = image.object("mmu_notifier", hlist__next=image.word(image.at["subscriptions"]))
    image.member("mmu_notifier_subscriptions", image.at["subscriptions"], "list.first", first)
    assert by_notifier(image) == Observed((image.at["machine"],))


@pytest.mark.parametrize(
    "damage",
    [
        lambda image: image.member("mmu_notifier_subscriptions", image.at["subscriptions"], "list.first", AWAY),
        lambda image: image.member("mm_struct", image.at["mm"], "notifier_subscriptions", AWAY),
        lambda image: image.poke(image.word(image.at["subscriptions"]), words(image.word(image.at["subscriptions"]))),
    ],
)
def test_notifiers_that_lead_astray_are_a_gap_by_their_memory(damage: Callable[[KernelImage], None]) -> None:
    image = host()
    damage(image)
    assert [gap.what for gap in by_notifier(image).gaps] == [f"memory notifiers of {image.at['mm']:#x}"]


@pytest.mark.parametrize(("symbol", "view"), [("vm_list", VIEWS[0]), ("kvm_running_vcpu", VIEWS[2])])
def test_without_its_symbol_a_view_is_unknown(symbol: str, view: Callable[[KernelImage], Observed[int]]) -> None:
    image = host()
    strings = image.at["strtab of kvm"]
    raw = image.peek(strings, 4096 - (strings & 0xFFF))
    image.poke(strings + raw.index(b"\0" + symbol.encode() + b"\0") + 1, b"x")
    with pytest.raises(MissingDescription, match=f"symbol {symbol} was not found"):
        view(image)


def test_a_processor_that_is_lost_makes_the_running_ones_unknown() -> None:
    image = host()
    image.poke(image.at["loaded 0"], words(AWAY))
    with pytest.raises(EvidenceError):
        machines_running(kvm_of(image))


def test_files_of_a_machine_may_carry_it_its_processors_and_its_devices() -> None:
    image = host()
    assert machine_objects(kvm_of(image), image.at["machine"]).items == (
        (image.at["machine"], "kvm-vm"),
        (image.at["vcpu"], "kvm-vcpu"),
        (image.at["kvm device"], "kvm-device"),
    )


def test_objects_of_a_machine_that_cannot_be_walked_are_gaps() -> None:
    image = host()
    image.member("kvm", image.at["machine"], "vcpu_array.xa_head", AWAY | 2, kvm_types())
    image.member("kvm", image.at["machine"], "devices.next", 0, kvm_types())
    found = machine_objects(kvm_of(image), image.at["machine"])
    assert [kind for _, kind in found.items] == ["kvm-vm"]
    assert [gap.what.partition(" of ")[0] for gap in found.gaps] == ["processors", "devices"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(3, None), (4, "machine"), (5, "machine"), (6, "machine"), (7, None)],
)
def test_a_file_belongs_to_its_machine(number: int, expected: str | None) -> None:
    image = host()
    assert machine_of_file(kvm_of(image), file(image, number)) == (None if expected is None else image.at[expected])


def file(image: KernelImage, number: int, beside: int = 0) -> OpenFile:
    kernel = image.open()
    at = image.at[f"file {number}"]
    return OpenFile(
        process=read_task(kernel, image.at["task qemu"]),
        descriptor=number,
        address=at,
        operations=image.word(at + image.types.offset("file", "f_op")) + beside,
        operations_at=at,
        private=image.word(at + image.types.offset("file", "private_data")),
    )


def test_a_table_beside_kvm_s_own_is_no_table_of_kvm() -> None:
    image = host()
    assert machine_of_file(kvm_of(image), file(image, 4, beside=8)) is None


def test_a_bus_that_is_not_there_has_no_devices() -> None:
    image = host()
    image.member("kvm", image.at["machine"], "buses[0]", 0, kvm_types())
    assert list(each_io_device(kvm_of(image), image.at["machine"])) == []


def test_buses_are_named_by_what_they_are() -> None:
    image = host()
    for index in range(1, 5):
        image.member("kvm", image.at["machine"], f"buses[{index}]", image.at["io bus"], kvm_types())
    names = [s.name for s in each_io_device(kvm_of(image), image.at["machine"]) if s.name.endswith(".ops")]
    kinds = [name.partition(" ")[2].partition(" ")[2].partition("[")[0] for name in names]
    assert kinds == ["MMIO bus", "PIO bus", "virtio-ccw bus", "fast MMIO bus", "iocsr bus"]
