from collections.abc import Callable

import pytest

from hypervigil.core.errors import EvidenceError, MissingDescription
from hypervigil.core.facts import Absent, Fact
from hypervigil.extract.kvm_tables import (
    emulator_tables,
    kvm_callbacks,
    kvm_device_operations,
    kvm_dispatch,
    kvm_file_operations,
    kvm_nested_operations,
    kvm_pmu_operations,
    svm_exit_handlers,
    vmx_exit_handlers,
)
from hypervigil.extract.loading import Subject
from hypervigil.facts.pointers import PointerTable
from tests.extract.judged import subject
from tests.linux.host_builder import host
from tests.linux.kernel_builder import KernelImage
from tests.linux.kvm_builder import OPERATIONS, SVM_EXITS

Extractor = Callable[[Subject], Fact | Absent]
OF_KVM = (emulator_tables, kvm_file_operations, kvm_device_operations, kvm_callbacks)
OF_A_VENDOR = (kvm_dispatch, kvm_nested_operations, kvm_pmu_operations)


def renamed(image: KernelImage, old: str, new: str) -> KernelImage:
    image.member("module", image.at[f"module {old}"], "name", new.encode())
    return image


def slots(extractor: Extractor, image: KernelImage) -> dict[str, str]:
    found = extractor(subject(image))
    assert isinstance(found, PointerTable)
    assert found.gaps == ()
    return {slot.name: slot.target.symbol for slot in found.slots if slot.target.address}


def test_each_operation_stands_beside_its_static_call() -> None:
    found = kvm_dispatch(subject(host()))
    assert not isinstance(found, Absent)
    assert found.vendor == "kvm_amd"
    assert [o.name for o in found.operations] == [*OPERATIONS, "kvm_pmu_ops.refresh", "kvm_pmu_ops.reset"]
    run = found.operations[1]
    assert run.key is not None
    assert run.trampoline is not None
    holders = (run.operation, run.key, run.trampoline)
    assert [h.target.symbol for h in holders] == ["svm_vcpu_run"] * 3
    assert [h.name for h in holders] == [
        "kvm_x86_ops.vcpu_run",
        "__SCK__kvm_x86_vcpu_run.func",
        "__SCT__kvm_x86_vcpu_run",
    ]
    without = found.operations[-1]
    assert (without.key, without.trampoline, without.operation.target.address) == (None, None, 0)


def test_tables_are_read_function_by_function() -> None:
    image = host()
    assert slots(kvm_nested_operations, image) == {
        "kvm_x86_ops.nested_ops": "svm_nested_ops",
        "svm_nested_ops.leave_nested": "svm_leave_nested",
    }
    assert slots(kvm_pmu_operations, image) == {"kvm_pmu_ops.refresh": "amd_pmu_refresh"}
    assert slots(kvm_file_operations, image) == {
        "kvm_chardev_ops.unlocked_ioctl": "kvm_dev_ioctl",
        "kvm_vm_fops.unlocked_ioctl": "kvm_vm_ioctl",
        "kvm_vm_fops.release": "kvm_vm_release",
        "kvm_vcpu_fops.unlocked_ioctl": "kvm_vcpu_ioctl",
        "kvm_device_fops.unlocked_ioctl": "kvm_device_ioctl",
    }
    assert slots(kvm_device_operations, image) == {
        "kvm_device_ops_table[1]": "kvm_vfio_ops",
        "kvm_vfio_ops.create": "kvm_vfio_create",
    }
    assert slots(kvm_callbacks, image) == {
        "kvm_preempt_ops.sched_in": "kvm_sched_in",
        "kvm_mmu_notifier_ops.release": "kvm_mmu_notifier_release",
    }
    assert slots(svm_exit_handlers, image) == {f"svm_exit_handlers[{n:#x}]": f"exit_{n:x}" for n in SVM_EXITS}


def test_opcode_tables_are_read_with_the_groups_they_lead_to() -> None:
    found = slots(emulator_tables, host())
    assert found["emulate_ops.read_gpr"] == "emulator_read_gpr"
    for table in ("opcode_table", "twobyte_table", "opcode_map_0f_38"):
        assert found[f"{table}[0x0].u"] == "em_add"
        assert found[f"{table}[0x0].check_perm"] == "check_cr"
        assert found[f"{table}[0x1].u"] == "group1"
    assert found["group1[0x0].u"] == "em_grp"


@pytest.mark.parametrize("extractor", [*OF_KVM, *OF_A_VENDOR, svm_exit_handlers, vmx_exit_handlers])
def test_without_kvm_there_is_no_table(extractor: Extractor) -> None:
    image = renamed(renamed(host(), "kvm", "other"), "kvm_amd", "other_amd")
    assert extractor(subject(image)) == Absent("KVM is not loaded")


@pytest.mark.parametrize("extractor", OF_A_VENDOR)
def test_without_a_processor_s_part_there_are_no_operations(extractor: Extractor) -> None:
    found = extractor(subject(renamed(host(), "kvm_amd", "other")))
    assert isinstance(found, Absent)
    assert found.why.startswith("neither kvm_amd nor kvm_intel is loaded")


def test_without_a_processor_s_part_there_need_be_no_device_but_what_is_there_is_judged() -> None:
    image = renamed(host(), "kvm_amd", "other")
    assert slots(kvm_device_operations, image)["kvm_vfio_ops.create"] == "kvm_vfio_create"
    image.poke(image.at["kvm_device_ops_table"] + 8, bytes(8))
    assert kvm_device_operations(subject(image)) == Absent("neither kvm_amd nor kvm_intel is loaded")
    image.member("module", image.at["module kvm_amd"], "name", b"kvm_amd")
    with pytest.raises(EvidenceError, match="all zero"):
        kvm_device_operations(subject(image))


def test_only_the_processor_s_own_part_has_exit_handlers() -> None:
    assert vmx_exit_handlers(subject(host())) == Absent("kvm_intel is not loaded")
    other = renamed(host(), "kvm_amd", "kvm_intel")
    assert svm_exit_handlers(subject(other)) == Absent("kvm_amd is not loaded")
    with pytest.raises(MissingDescription, match="kvm_vmx_exit_handlers was not found in kvm_intel"):
        vmx_exit_handlers(subject(other))


@pytest.mark.parametrize(
    "extractor", [emulator_tables, kvm_device_operations, kvm_dispatch, kvm_nested_operations, svm_exit_handlers]
)
def test_without_symbols_of_the_module_nothing_is_known(extractor: Extractor) -> None:
    image = host()
    for name in ("kvm", "kvm_amd"):
        table = image.word(image.at[f"module {name}"] + image.types.offset("module", "kallsyms"))
        image.member("mod_kallsyms", table, "num_symtab", 0)
    with pytest.raises(EvidenceError):
        extractor(subject(image))


@pytest.mark.parametrize("extractor", [kvm_dispatch, emulator_tables, kvm_device_operations, kvm_callbacks])
def test_a_table_that_is_lost_is_unknown(extractor: Extractor) -> None:
    image = host()
    lost = [image.physical(image.at[n]) & -4096 for n in ("kvm_x86_ops", "opcode_table", "kvm_mmu_notifier_ops")]
    with pytest.raises(EvidenceError):
        extractor(subject(image, image.lime(*sorted({*lost}))))
