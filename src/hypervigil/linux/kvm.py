"""KVM: where its tables are and what they hold (arch/x86/kvm, virt/kvm).

Tables are found by their symbols in the modules, measured by the sizes that a module's symbol table has, and read
member by member through type information. Where a table's size and its type's differ, the type is not believed.
"""

from collections.abc import Iterator

import drgn
import msgspec
import numpy as np

from hypervigil.core.errors import MissingDescription
from hypervigil.core.facts import Absent, Gap, Observed
from hypervigil.core.units import VirtAddr
from hypervigil.facts.hypervisor import Dispatch
from hypervigil.facts.pointers import Section, Slot
from hypervigil.linux.members import offset_of
from hypervigil.linux.system import HYPERVISOR_MODULES, KERNEL, System

KVM = "kvm"
VENDORS = ("kvm_amd", "kvm_intel")
_JUMP = 0xE9
_RETURN = 0xC3
_THUNK = "return_thunk"  # __x86_, retbleed_, srso_, srso_alias_, its_, call_depth_
_MAX_TABLE = 1 << 20
_OPCODE_ROOTS = ("opcode_table", "twobyte_table", "opcode_map_0f_38")
_FILE_TABLES = ("kvm_chardev_ops",)
_OPERATIONS = "_ops"
_CALLBACKS = (
    ("kvm_preempt_ops", "struct preempt_ops"),
    ("kvm_mmu_notifier_ops", "struct mmu_notifier_ops"),
    ("kvm_guest_cbs", "struct perf_guest_info_callbacks"),
    ("kvm_vcpu_vm_ops", "struct vm_operations_struct"),
)


class Kvm(msgspec.Struct, frozen=True, eq=False):
    """KVM as it is loaded: its system, and which processor back end serves it."""

    system: System
    vendor: str


def find_kvm(system: System) -> Kvm | Absent:
    """Find KVM among the modules.

    Raises:
        MissingDescription: whether it is loaded cannot be told, or only part of it is.
    """
    names = {module.name for module in system.modules.items}
    if KVM not in names:
        if system.modules.gaps:
            raise MissingDescription(f"modules could not be seen completely: {system.modules.gaps[0]}")
        if "kvm_x86_ops" in system.kernel.symbols:
            raise MissingDescription("KVM is built into this kernel; it is read only where it is a module")
        return Absent("KVM is not loaded")
    vendor = next((name for name in VENDORS if name in names), "")
    return Kvm(system, vendor)


def functions_of(system: System, name: str, address: int, type_name: str) -> Iterator[Slot]:
    """The function pointers of a structure as slots, member by member.

    Raises:
        MissingDescription: the type is not known.
        MissingMemory: it is not in the image.
    """
    kind = system.kernel.type(type_name)
    data = system.kernel.space.read(VirtAddr(address), kind.size or 0, zero_ok=True)
    for member in kind.members or ():
        if member.name and _is_function(member.type):
            at = member.bit_offset // 8
            value = int.from_bytes(data[at : at + 8], "little")
            yield system.slot(f"{name}.{member.name}", address + at, value)


def _is_function(kind: drgn.Type) -> bool:
    while kind.kind is drgn.TypeKind.TYPEDEF:
        kind = kind.type
    return kind.kind is drgn.TypeKind.POINTER and _behind(kind.type).kind is drgn.TypeKind.FUNCTION


def _behind(kind: drgn.Type) -> drgn.Type:
    while kind.kind is drgn.TypeKind.TYPEDEF:
        kind = kind.type
    return kind


def table(kvm: Kvm, name: str, *owners: str) -> tuple[VirtAddr, int, str]:
    """Address, size in bytes and owner of a table by its symbol.

    Raises:
        MissingDescription: no module has the symbol, or its size is not known.
    """
    for owner in owners or HYPERVISOR_MODULES:
        symbols = kvm.system.symbols_of(owner)
        if symbols is None or name not in symbols:
            continue
        position = symbols.names.index(name)
        size = symbols.sizes[position] if symbols.sizes is not None else 0
        if not 0 < size <= _MAX_TABLE:
            raise MissingDescription(f"the size of {name} is not known")
        return VirtAddr(symbols.addresses[position]), size, owner
    raise MissingDescription(f"symbol {name} was not found in {' or '.join(owners or HYPERVISOR_MODULES)}")


def typed_table(kvm: Kvm, name: str, type_name: str, *owners: str) -> VirtAddr:
    """Address of a table whose size must be that of its type.

    Raises:
        MissingDescription: as `table`, or the sizes differ: then the type does not describe this table.
    """
    address, size, _ = table(kvm, name, *owners)
    known = kvm.system.kernel.type(type_name).size
    if known != size:
        raise MissingDescription(f"{name} has {size} bytes, but {type_name} has {known}: its type is not known")
    return address


def tables_of_type(kvm: Kvm, type_name: str, *owners: str) -> Iterator[tuple[str, VirtAddr]]:
    """Name and address of every symbol of the size of a structure of operations, and with such a name.

    Objects of KVM's modules have no types: several structures of one size cannot be told apart here.

    Args:
        kvm: the hypervisor.
        type_name: the structure.
        owners: modules that may have such tables; those that are not loaded have none.

    Raises:
        MissingDescription: the type is not known, or the symbols of a module that is loaded are not.
    """
    size = kvm.system.kernel.type(type_name).size
    for owner in owners:
        if kvm.system.module(owner) is None:
            continue
        symbols = kvm.system.symbols_of(owner)
        if symbols is None or symbols.sizes is None:
            raise MissingDescription(f"the symbols of module {owner} cannot be read")
        for position, name in enumerate(symbols.names):
            if symbols.sizes[position] == size and _OPERATIONS in name:
                yield name, VirtAddr(symbols.addresses[position])


def device_tables(kvm: Kvm) -> tuple[str, ...]:
    """Symbols of every ``struct kvm_device_ops``: the first member is a name, no function as in tables of that size.

    Raises:
        MissingDescription: as `tables_of_type`.
        MissingMemory: a table is not in the image.
    """
    system = kvm.system
    found = dict.fromkeys(
        name
        for name, address in tables_of_type(kvm, "struct kvm_device_ops", *HYPERVISOR_MODULES)
        if system.target(system.kernel.space.u64(address)).section is not Section.TEXT
    )
    return tuple(sorted(found))


def each_operation(kvm: Kvm) -> Iterator[Dispatch]:
    """``kvm_x86_ops`` and, since 5.19, ``kvm_pmu_ops``, each operation with its static call.

    Static calls: 9af5471bdbb2 "KVM: x86: introduce definitions to support static calls for kvm_x86_ops" (5.12).
    """
    sources = [("kvm_x86_ops", "struct kvm_x86_ops", "kvm_x86_")]
    if kvm.system.find("kvm_pmu_ops", KVM) is not None:
        sources.append(("kvm_pmu_ops", "struct kvm_pmu_ops", "kvm_x86_pmu_"))
    for name, type_name, prefix in sources:
        address = typed_table(kvm, name, type_name, KVM)
        for slot in functions_of(kvm.system, name, address, type_name):
            call = prefix + slot.name.rpartition(".")[2]
            key = kvm.system.find(f"__SCK__{call}", KVM)
            trampoline = kvm.system.find(f"__SCT__{call}", KVM)
            yield Dispatch(
                name=slot.name.removeprefix("kvm_x86_ops."),
                operation=slot,
                key=None if key is None else kvm.system.slot(f"__SCK__{call}.func", key),
                trampoline=None if trampoline is None else _trampoline(kvm.system, f"__SCT__{call}", trampoline),
            )


def _trampoline(system: System, name: str, address: VirtAddr) -> Slot:
    """Where a trampoline goes: a jump, or a return for a call of nothing (arch/x86/kernel/static_call.c).

    One that is neither of both is said to lead to itself, which agrees with nobody.
    """
    code = system.kernel.space.read(address, 5)
    if code[0] == _JUMP:
        target = system.target((address + 5 + int.from_bytes(code[1:], "little", signed=True)) % (1 << 64))
        if target.owner == KERNEL and not target.offset and target.symbol.endswith(_THUNK):
            target = system.target(0)
    else:
        target = system.target(0 if code[0] == _RETURN else address)
    return Slot(name=name, address=address, target=target, span=system.spans(address, 5))


def each_nested_operation(kvm: Kvm) -> Iterator[Slot]:
    """The table for nested guests: a pointer in ``kvm_x86_ops``, and the functions behind it."""
    address = typed_table(kvm, "kvm_x86_ops", "struct kvm_x86_ops", KVM)
    pointer = address + offset_of(kvm.system.kernel.type("struct kvm_x86_ops"), "nested_ops")
    yield from _behind_pointer(kvm, "kvm_x86_ops.nested_ops", pointer, "struct kvm_x86_nested_ops", "_nested_ops")


def each_pmu_operation(kvm: Kvm) -> Iterator[Slot]:
    """``kvm_pmu_ops``; before 5.19 the table that ``kvm_x86_ops.pmu_ops`` points to.

    8f969c0c3443 "KVM: x86: Copy kvm_pmu_ops by value to eliminate layer of indirection" (5.19).
    """
    if kvm.system.find("kvm_pmu_ops", KVM) is not None:
        address = typed_table(kvm, "kvm_pmu_ops", "struct kvm_pmu_ops", KVM)
        yield from functions_of(kvm.system, "kvm_pmu_ops", address, "struct kvm_pmu_ops")
        return
    address = typed_table(kvm, "kvm_x86_ops", "struct kvm_x86_ops", KVM)
    pointer = address + offset_of(kvm.system.kernel.type("struct kvm_x86_ops"), "pmu_ops")
    yield from _behind_pointer(kvm, "kvm_x86_ops.pmu_ops", pointer, "struct kvm_pmu_ops", "_pmu_ops")


def _behind_pointer(kvm: Kvm, name: str, pointer: int, type_name: str, ending: str) -> Iterator[Slot]:
    """A pointer to a table of the back end's, and the functions of that table wherever it is.

    Args:
        kvm: the hypervisor.
        name: what to call the pointer.
        pointer: where it stands.
        type_name: the table's structure.
        ending: how such tables are called in every back end: ``svm_nested_ops``, ``intel_pmu_ops``.

    Raises:
        MissingDescription: the back end has no such table.
    """
    wanted = sorted({known for known, _ in tables_of_type(kvm, type_name, kvm.vendor) if known.endswith(ending)})
    if not wanted:
        raise MissingDescription(f"{kvm.vendor} has no table of type {type_name} whose name ends with {ending}")
    slot = kvm.system.slot(name, pointer, wanted=tuple(wanted))
    yield slot
    if slot.target.address:
        shown = slot.target.symbol if slot.target.symbol and not slot.target.offset else name
        yield from functions_of(kvm.system, shown, slot.target.address, type_name)


def exit_handlers(kvm: Kvm, name: str, owner: str, defined: tuple[range, ...]) -> Observed[Slot]:
    """The set slots of a table of exit handlers, by exit reason.

    Args:
        kvm: the hypervisor.
        name: the table's symbol.
        owner: its module.
        defined: exit reasons that exist; the table may be zero between them, and over whole pages.
    """
    address, size, _ = table(kvm, name, owner)
    slots: list[Slot] = []
    gaps: list[Gap] = []
    for at, length, data in kvm.system.kernel.space.each_piece(address, size & ~7):
        reasons = range((at - address) // 8, (at + length - address) // 8)
        if data is None and any(reason in reasons for known in defined for reason in (known.start, known.stop - 1)):
            gaps.append(Gap(f"{name}[{reasons.start:#x}..{reasons.stop - 1:#x}]", "not in the image"))
        for reason, value in zip(reasons, np.frombuffer(data or b"", "<u8").tolist(), strict=False):
            if value:
                slots.append(kvm.system.slot(f"{name}[{reason:#x}]", address + 8 * reason, value))
    return Observed(tuple(slots), tuple(gaps))


def each_emulator_slot(kvm: Kvm) -> Iterator[Slot]:
    """``emulate_ops`` and all opcode tables, from the three roots on through every group they point to.

    An entry's ``u`` leads to a function or to a further table, as its flags say (struct opcode, emulate.c).
    """
    kind = kvm.system.kernel.type("struct opcode")
    yield from functions_of(
        kvm.system,
        "emulate_ops",
        typed_table(kvm, "emulate_ops", "struct x86_emulate_ops", KVM),
        "struct x86_emulate_ops",
    )
    pointer, permission, width = offset_of(kind, "u"), offset_of(kind, "check_perm"), kind.size
    if not width:
        raise MissingDescription("struct opcode has no size")
    waiting = list(_OPCODE_ROOTS)
    seen: set[str] = set()
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        address, size, _ = table(kvm, name, KVM)
        data = kvm.system.kernel.space.read(address, size)
        for index in range(size // width):
            for member, at in (("u", index * width + pointer), ("check_perm", index * width + permission)):
                value = int.from_bytes(data[at : at + 8], "little")
                if not value:
                    continue
                slot = kvm.system.slot(f"{name}[{index:#x}].{member}", address + at, value)
                yield slot
                if slot.target.section in {Section.RODATA, Section.DATA} and not slot.target.offset:
                    waiting.append(slot.target.symbol)


def each_file_operation(kvm: Kvm) -> Iterator[Slot]:
    """The functions of every ``struct file_operations`` of KVM's modules."""
    size = kvm.system.kernel.type("struct file_operations").size
    for owner in HYPERVISOR_MODULES:
        symbols = kvm.system.symbols_of(owner)
        if symbols is None or symbols.sizes is None:
            continue
        for position, name in enumerate(symbols.names):
            if symbols.sizes[position] == size and (name.endswith("_fops") or name in _FILE_TABLES):
                address = symbols.addresses[position]
                yield from functions_of(kvm.system, name, address, "struct file_operations")


def each_device_operation(kvm: Kvm) -> Iterator[Slot]:
    """``kvm_device_ops_table`` and the functions of each table that it leads to."""
    wanted = device_tables(kvm)
    for slot in kinds_of_device(kvm):
        yield msgspec.structs.replace(slot, wanted=wanted if slot.target.owner in HYPERVISOR_MODULES else ())
        if slot.target.address:
            shown = slot.target.symbol if not slot.target.offset else slot.name
            yield from functions_of(kvm.system, shown or slot.name, slot.target.address, "struct kvm_device_ops")


def kinds_of_device(kvm: Kvm) -> tuple[Slot, ...]:
    """The entries of ``kvm_device_ops_table``, by kind of device; most are empty.

    Raises:
        MissingDescription: KVM has no such symbol.
        MissingMemory: it is not in the image.
    """
    address, size, _ = table(kvm, "kvm_device_ops_table", KVM)
    data = kvm.system.kernel.space.read(address, size & ~7)
    return tuple(
        kvm.system.slot(f"kvm_device_ops_table[{at // 8}]", address + at, int.from_bytes(data[at : at + 8], "little"))
        for at in range(0, len(data), 8)
    )


def each_callback(kvm: Kvm) -> Iterator[Slot]:
    """Tables of functions that KVM gives to the scheduler, memory management, perf and the rest of the kernel."""
    for name, type_name in _CALLBACKS:
        address = kvm.system.find(name, *HYPERVISOR_MODULES)
        if address is not None:
            yield from functions_of(kvm.system, name, address, type_name)
    for name in ("perf_guest_cbs", "kvm_posted_intr_wakeup_handler"):
        variable = kvm.system.find(name, KERNEL)
        if variable is not None:
            yield kvm.system.slot(name, variable)
