from collections.abc import Callable

import pytest

from hypervigil.core.facts import Absent, Gap
from hypervigil.extract.kvm_objects import kvm_devices, kvm_interrupt_fds, kvm_io_devices, kvm_open_files
from hypervigil.extract.loading import Subject
from hypervigil.facts.pointers import Objects
from tests.extract.judged import finding, judged, subject
from tests.linux.host_builder import host, kvm_types
from tests.linux.kernel_builder import HEAP, KernelImage

Extractor = Callable[[Subject], Objects | Absent]
AWAY = HEAP + (1 << 41)
EXTRACTORS = (kvm_io_devices, kvm_interrupt_fds, kvm_devices, kvm_open_files)


def objects(extractor: Extractor, image: KernelImage) -> Objects:
    found = extractor(subject(image))
    assert not isinstance(found, Absent)
    return found


def names(found: Objects) -> list[str]:
    return [slot.name for slot in found.slots]


def test_devices_on_a_bus_are_shown_with_the_functions_behind_them() -> None:
    image = host()
    found = objects(kvm_io_devices, image)
    machine = f"machine {image.at['machine']:#x}"
    assert names(found) == [
        f"{machine} MMIO bus[0] (0xfec00000).ops",
        *(f"ioapic_mmio_ops.{name}" for name in ("read", "write", "destructor")),
    ]
    assert found.slots[0].address == image.at["io device"]
    assert found.slots[1].target.symbol == "ioapic_mmio_read"
    assert (found.looked_at, found.gaps) == (2, ())


def test_functions_behind_several_devices_of_one_kind_are_shown_once() -> None:
    image = host()
    types = kvm_types()
    image.member("kvm_io_bus", image.at["io bus"], "dev_count", 2, types)
    image.member("kvm_io_bus", image.at["io bus"], "range[1].dev", image.at["io device"], types)
    assert [name.partition(" bus")[2] or name for name in names(objects(kvm_io_devices, image))] == [
        "[0] (0xfec00000).ops",
        "ioapic_mmio_ops.read",
        "ioapic_mmio_ops.write",
        "ioapic_mmio_ops.destructor",
        "[1] (0x0).ops",
    ]


@pytest.mark.parametrize("count", [4097, -1, 1 << 31])
def test_an_impossible_number_of_devices_is_a_gap(count: int) -> None:
    image = host()
    image.member("kvm_io_bus", image.at["io bus"], "dev_count", count, kvm_types())
    found = objects(kvm_io_devices, image)
    assert found.slots == ()
    assert [gap.what for gap in found.gaps] == [f"I/O devices of machine {image.at['machine']:#x}"]
    assert finding(judged(image), "KVM-010").verdict == "incomplete"


def test_what_was_read_before_a_fault_is_kept() -> None:
    image = host()
    types = kvm_types()
    image.member("kvm_io_bus", image.at["io bus"], "dev_count", 2, types)
    image.member("kvm_io_bus", image.at["io bus"], "range[1].dev", AWAY, types)
    found = objects(kvm_io_devices, image)
    assert len(found.slots) == 4
    assert len(found.gaps) == 1


def test_an_irqfd_shows_its_functions() -> None:
    image = host()
    found = objects(kvm_interrupt_fds, image)
    machine = f"machine {image.at['machine']:#x} irqfd[0]"
    assert [(s.name, s.target.symbol) for s in found.slots] == [
        (f"{machine}.wait.func", "irqfd_wakeup"),
        (f"{machine}.pt._qproc", "irqfd_ptable_queue_proc"),
    ]


def test_an_irqfd_of_another_machine_is_a_gap() -> None:
    image = host()
    image.member("kvm_kernel_irqfd", image.at["irqfd"], "kvm", HEAP, kvm_types())
    found = objects(kvm_interrupt_fds, image)
    assert found.slots == ()
    assert "does not belong to machine" in found.gaps[0].why


@pytest.mark.parametrize(
    ("extractor", "path"), [(kvm_interrupt_fds, "irqfds.items.next"), (kvm_devices, "devices.next")]
)
def test_a_list_that_leads_into_the_wild_is_a_gap(extractor: Extractor, path: str) -> None:
    for value in (0, 0x1000, AWAY):
        image = host()
        image.member("kvm", image.at["machine"], path, value, kvm_types())
        found = objects(extractor, image)
        assert found.slots == ()
        assert len(found.gaps) == 1


def test_a_created_device_shows_its_operations() -> None:
    image = host()
    found = objects(kvm_devices, image)
    assert names(found) == [f"machine {image.at['machine']:#x} device[0].ops"]
    assert found.slots[0].target.symbol == "kvm_vfio_ops"
    image.member("kvm_device", image.at["kvm device"], "kvm", HEAP, kvm_types())
    assert any("does not belong to machine" in gap.why for gap in objects(kvm_devices, image).gaps)


def test_open_files_of_kvm_are_shown_by_what_they_carry() -> None:
    image = host()
    found = objects(kvm_open_files, image)
    assert [(s.name.partition("file ")[2], s.wanted[:1]) for s in found.slots] == [
        ("3.f_op", ()),
        ("4 (kvm-vm).f_op", ("kvm_vm_fops",)),
        ("5 (kvm-vcpu).f_op", ("kvm_vcpu_fops",)),
        ("6 (kvm-device).f_op", ("kvm_device_fops",)),
    ]
    assert [s.target.symbol for s in found.slots] == ["kvm_chardev_ops", *(s.wanted[0] for s in found.slots[1:])]
    assert found.slots[1].address == image.at["file 4"] + image.types.offset("file", "f_op")
    assert (found.looked_at, found.gaps) == (4, ())


def test_a_file_that_carries_a_machine_is_kvm_s_whatever_its_operations_are() -> None:
    image = host()
    image.member("file", image.at["file 5"], "f_op", image.at["dummy_init"])
    assert "5 (kvm-vcpu).f_op" in {name.partition("file ")[2] for name in names(objects(kvm_open_files, image))}


def test_what_a_machine_holds_and_cannot_be_read_is_a_gap_of_its_files() -> None:
    image = host()
    image.member("kvm", image.at["machine"], "devices.next", 0, kvm_types())
    gaps = objects(kvm_open_files, image).gaps
    assert [gap.what for gap in gaps] == [f"devices of machine {image.at['machine']:#x}"]


def test_a_machine_that_cannot_be_read_is_a_gap() -> None:
    image = host()
    image.member("file", image.at["file 4"], "private_data", AWAY)
    for extractor in EXTRACTORS:
        assert any(f"machine {AWAY:#x}" in gap.what for gap in objects(extractor, image).gaps), extractor


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_without_kvm_there_is_nothing_to_look_at(extractor: Extractor) -> None:
    image = host()
    for name in ("kvm", "kvm_amd"):
        image.member("module", image.at[f"module {name}"], "name", b"other_" + name[-3:].encode())
    assert extractor(subject(image)) == Absent("KVM is not loaded")


@pytest.mark.parametrize("extractor", EXTRACTORS[:3])
def test_without_machines_nothing_hangs_on_one(extractor: Extractor) -> None:
    image = host()
    image.unlink(image.at["machine"] + kvm_types().offset("kvm", "vm_list"))
    for index in (4, 5, 6):
        image.set("file", image.at[f"file {index}"], f_op=image.symbols["exported_one"][0], private_data=0)
    image.member("mmu_notifier_subscriptions", image.at["subscriptions"], "list.first", 0)
    image.poke(image.at["loaded 1"], bytes(8))
    found = objects(extractor, image)
    assert (found.slots, found.looked_at, found.gaps) == ((), 1, ())


def test_files_that_were_lost_are_gaps() -> None:
    image = host()
    image.member("fdtable", image.at["fdtable"], "fd", AWAY)
    found = objects(kvm_open_files, image)
    assert "open files of 100 (qemu)" in {gap.what for gap in found.gaps}
    assert isinstance(found.gaps[0], Gap)
