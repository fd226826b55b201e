import struct

import pytest

from hypervigil.checks.targets import misdirection
from hypervigil.core.errors import MissingDescription, MissingMemory
from hypervigil.core.facts import Absent, Gap
from hypervigil.core.units import PAGE_SIZE
from hypervigil.facts.pointers import Section
from hypervigil.linux.kvm import (
    Kvm,
    each_callback,
    each_device_operation,
    each_emulator_slot,
    each_operation,
    each_pmu_operation,
    exit_handlers,
    find_kvm,
    functions_of,
    table,
    typed_table,
)
from hypervigil.memory.reader import Reader
from tests.extract.tamperings import hidden_module
from tests.linux.c_types import words
from tests.linux.host_builder import host, kvm_types, system_of
from tests.linux.kernel_builder import HEAP, KernelImage

AWAY = HEAP + (1 << 41)
REASONS = (range(0xA6), range(0x400, 0x404))


def kvm_of(image: KernelImage, memory: Reader | None = None) -> Kvm:
    found = find_kvm(system_of(image, memory))
    assert not isinstance(found, Absent)
    return found


def without_kvm() -> KernelImage:
    image = host()
    for name in ("kvm", "kvm_amd"):
        image.member("module", image.at[f"module {name}"], "name", b"x" + name.encode())
    return image


def test_kvm_is_found_with_the_part_that_serves_it() -> None:
    assert kvm_of(host()).vendor == "kvm_amd"
    image = host()
    image.member("module", image.at["module kvm_amd"], "name", b"kvm_intel")
    assert kvm_of(image).vendor == "kvm_intel"
    image.member("module", image.at["module kvm_amd"], "name", b"other")
    assert kvm_of(image).vendor == ""


def test_without_its_module_kvm_is_not_loaded() -> None:
    assert find_kvm(system_of(without_kvm())) == Absent("KVM is not loaded")


def test_kvm_in_the_kernel_itself_is_told() -> None:
    image = without_kvm()
    image.pointers("kvm_x86_ops", 0)
    image.put_tables()
    with pytest.raises(MissingDescription, match="KVM is built into this kernel"):
        find_kvm(system_of(image))


def test_while_a_module_could_not_be_read_it_may_be_kvm() -> None:
    image = without_kvm()
    image.member("module", hidden_module(image), "state", 9)
    with pytest.raises(MissingDescription, match="modules could not be seen completely"):
        find_kvm(system_of(image))


def test_functions_of_a_structure_are_its_function_pointers() -> None:
    image = host()
    found = list(functions_of(kvm_of(image).system, "ops", image.at["kvm_x86_ops"], "struct kvm_x86_ops"))
    assert [s.name for s in found] == [f"ops.{n}" for n in ("check_processor", "vcpu_run", "handle_exit")]
    assert [s.address - image.at["kvm_x86_ops"] for s in found] == [8, 16, 24]


def symbol_size(image: KernelImage, module: str, symbol: str, size: int) -> None:
    """Change the size that a module's symbol table gives a symbol."""
    rows = image.at[f"symtab of {module}"]
    count = 0
    while image.word(rows + 24 * count + 8) != image.at[symbol]:
        count += 1
    image.poke(rows + 24 * count + 16, words(size))


@pytest.mark.parametrize("size", [0, (1 << 20) + 1, 1 << 63])
def test_a_table_without_a_sound_size_is_not_known(size: int) -> None:
    image = host()
    symbol_size(image, "kvm", "kvm_x86_ops", size)
    with pytest.raises(MissingDescription, match="the size of kvm_x86_ops is not known"):
        table(kvm_of(image), "kvm_x86_ops", "kvm")


def test_a_table_whose_type_has_another_size_is_not_believed() -> None:
    image = host()
    size = kvm_types().size("kvm_x86_ops")
    assert typed_table(kvm_of(image), "kvm_x86_ops", "struct kvm_x86_ops", "kvm") == image.at["kvm_x86_ops"]
    symbol_size(image, "kvm", "kvm_x86_ops", size + 8)
    with pytest.raises(MissingDescription, match=f"has {size + 8} bytes, but struct kvm_x86_ops has {size}"):
        typed_table(kvm_of(image), "kvm_x86_ops", "struct kvm_x86_ops", "kvm")
    with pytest.raises(MissingDescription, match="symbol none was not found in kvm_amd or kvm"):
        table(kvm_of(image), "none", "kvm_amd", "kvm")


def trampoline_target(image: KernelImage, code: bytes) -> tuple[int, str]:
    """Where the trampoline of handle_exit is said to lead."""
    image.poke(image.at["__SCT__kvm_x86_handle_exit"], code.ljust(5, b"\xcc"))
    (found,) = [o for o in each_operation(kvm_of(image)) if o.name == "handle_exit"]
    assert found.trampoline is not None
    return found.trampoline.target.address, found.trampoline.target.symbol


def test_a_trampoline_leads_where_its_jump_does() -> None:
    image = host()
    at = image.at["__SCT__kvm_x86_handle_exit"]
    there = image.at["svm_vcpu_run"]
    assert trampoline_target(image, b"\xe9" + struct.pack("<i", there - at - 5)) == (there, "svm_vcpu_run")
    assert trampoline_target(image, b"\xe9" + struct.pack("<i", -5)) == (at, "__SCT__kvm_x86_handle_exit")


def test_a_trampoline_that_returns_leads_nowhere() -> None:
    image = host()
    assert trampoline_target(image, b"\xc3") == (0, "")
    thunk = image.symbols["exported_one"][0]
    image.name("its_return_thunk", thunk, "T")
    image.symbols.pop("exported_one")
    image.put_tables()
    jump = b"\xe9" + struct.pack("<i", thunk - image.at["__SCT__kvm_x86_handle_exit"] - 5)
    assert trampoline_target(image, jump) == (0, "")
    beside = b"\xe9" + struct.pack("<i", thunk + 1 - image.at["__SCT__kvm_x86_handle_exit"] - 5)
    assert trampoline_target(image, beside) == (thunk + 1, "its_return_thunk")


@pytest.mark.parametrize("code", [b"\x90", b"\xcc", b"\xe8\0\0\0\0", b"\xff\x25"])
def test_a_trampoline_that_is_neither_leads_to_itself(code: bytes) -> None:
    image = host()
    assert trampoline_target(image, code)[0] == image.at["__SCT__kvm_x86_handle_exit"]


def renamed(image: KernelImage, module: str, symbol: str) -> None:
    strings = image.at[f"strtab of {module}"]
    raw = image.peek(strings, 4096 - (strings & 0xFFF))
    image.poke(strings + raw.index(b"\0" + symbol.encode() + b"\0") + len(symbol), b"x")


def test_before_5_19_counters_stand_behind_a_pointer() -> None:
    image = host()
    renamed(image, "kvm", "kvm_pmu_ops")
    pointer = image.at["kvm_x86_ops"] + kvm_types().offset("kvm_x86_ops", "pmu_ops")
    image.poke(pointer, words(image.at["amd_pmu_ops"]))
    slots = list(each_pmu_operation(kvm_of(image)))
    assert [(s.name, s.target.symbol, s.wanted) for s in slots] == [
        ("kvm_x86_ops.pmu_ops", "amd_pmu_ops", ("amd_pmu_ops",)),
        ("amd_pmu_ops.refresh", "amd_pmu_refresh", ()),
        ("amd_pmu_ops.reset", "", ()),
    ]
    image.poke(pointer, words(image.at["svm_nested_ops"]))
    assert misdirection(next(each_pmu_operation(kvm_of(image))), ("kvm_amd",), (Section.RODATA,)) == (
        "leads to svm_nested_ops [kvm_amd] instead of amd_pmu_ops"
    )
    renamed(image, "kvm_amd", "amd_pmu_ops")
    with pytest.raises(MissingDescription, match="kvm_amd has no table of type struct kvm_pmu_ops whose name ends"):
        list(each_pmu_operation(kvm_of(image)))
    assert [o.name for o in each_operation(kvm_of(image))] == ["check_processor", "vcpu_run", "handle_exit"]


def test_exit_handlers_stand_at_their_reasons() -> None:
    image = host()
    found = exit_handlers(kvm_of(image), "svm_exit_handlers", "kvm_amd", REASONS)
    assert found.gaps == ()
    assert {s.name: s.target.symbol for s in found.items}["svm_exit_handlers[0x403]"] == "exit_403"
    assert all(s.address == image.at["svm_exit_handlers"] + 8 * int(s.name[18:-1], 16) for s in found.items)


def test_handlers_end_with_the_last_whole_pointer() -> None:
    image = host()
    symbol_size(image, "kvm_amd", "svm_exit_handlers", 8 * 0xA6 + 5)
    found = exit_handlers(kvm_of(image), "svm_exit_handlers", "kvm_amd", REASONS)
    assert [s.name for s in found.items][-1] == "svm_exit_handlers[0xa5]"


def test_opcodes_without_a_size_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    kvm = kvm_of(host())
    kernel = kvm.system.kernel
    empty = kernel.program.struct_type("opcode", 0, kernel.type("struct opcode").members)
    kinds = {"struct opcode": empty}
    genuine = kernel.type
    monkeypatch.setattr(kernel, "type", lambda name: kinds.get(name) or genuine(name))
    with pytest.raises(MissingDescription, match="struct opcode has no size"):
        list(each_emulator_slot(kvm))


def test_a_page_of_handlers_that_is_lost_is_a_gap_where_reasons_begin_or_end() -> None:
    image = host()
    at = image.at["svm_exit_handlers"]
    last = (at + 8 * 0x403) & -PAGE_SIZE
    found = exit_handlers(kvm_of(image, image.lime(image.physical(last))), "svm_exit_handlers", "kvm_amd", REASONS)
    first = (last - at) // 8
    assert found.gaps == (Gap(f"svm_exit_handlers[{first:#x}..0x403]", "not in the image"),)
    kept = exit_handlers(
        kvm_of(image, image.lime(image.physical(last))), "svm_exit_handlers", "kvm_amd", (range(0xA6),)
    )
    assert kept.gaps == ()


def test_opcode_tables_that_lead_to_themselves_end() -> None:
    image = host()
    image.poke(image.at["group1"] + 8, words(image.at["group1"]))
    names = [s.name for s in each_emulator_slot(kvm_of(image))]
    assert len(names) == len(set(names))
    assert "group1[0x0].u" in names


def test_a_group_whose_size_is_not_known_is_unknown() -> None:
    image = host()
    image.poke(image.at["group1"] + 8, words(image.at["module kvm"] + 8))
    assert list(each_emulator_slot(kvm_of(image)))
    image.poke(image.at["opcode_table"] + 8, words(image.at["vm_list"]))
    symbol_size(image, "kvm", "vm_list", 0)
    with pytest.raises(MissingDescription):
        list(each_emulator_slot(kvm_of(image)))


def test_a_kind_of_device_that_leads_away_is_unknown() -> None:
    image = host()
    image.poke(image.at["kvm_device_ops_table"], words(AWAY))
    with pytest.raises(MissingMemory):
        list(each_device_operation(kvm_of(image)))


def test_callbacks_are_those_that_this_kernel_has() -> None:
    image = host()
    assert {s.name.partition(".")[0] for s in each_callback(kvm_of(image))} == {
        "kvm_preempt_ops",
        "kvm_mmu_notifier_ops",
    }
    image.pointers("perf_guest_cbs", image.at["kvm_preempt_ops"])
    image.put_tables()
    (found,) = [s for s in each_callback(kvm_of(image)) if s.name == "perf_guest_cbs"]
    assert found.target.symbol == "kvm_preempt_ops"
