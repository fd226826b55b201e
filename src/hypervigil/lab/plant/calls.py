"""Static calls and direct calls, led to a stub that passes them on."""

from hypervigil.core.units import VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.machine import Machine
from hypervigil.lab.plant.change import put, put_pointer
from hypervigil.lab.plant.stub import branch, direct_pass_through, pass_through
from hypervigil.lab.truth import Planted

_CALL, _JUMP = 0xE8, 0xE9
_BRANCH = 5


def static_call_trampoline(machine: Machine, *, call: str) -> Planted:
    """Turns the jump in `__SCT__<call>` to a stub.

    Source: arch/x86/kernel/static_call.c; static calls came with 5.10, KVM's own with "KVM: x86: introduce
    definitions to support static calls for kvm_x86_ops" (5.12).
    """
    trampoline = machine.symbols.find(f"__SCT__{call}").address
    old = machine.memory.read(trampoline, _BRANCH)
    if old[0] != _JUMP:
        raise NotApplicable(f"__SCT__{call} holds no jump")
    target = trampoline + _BRANCH + int.from_bytes(old[1:], "little", signed=True)
    stub = direct_pass_through(machine, target, "kvm_amd")
    change = put(machine, f"__SCT__{call}", trampoline, branch(_JUMP, trampoline, stub.address))
    return Planted((change, stub.change), stub.address, {"original": target})


def static_call_key(machine: Machine, *, call: str) -> Planted:
    """Turns `__SCK__<call>.func`, the first member of struct static_call_key, to a stub."""
    key = machine.symbols.find(f"__SCK__{call}").address
    target = machine.memory.pointer(key)
    stub = pass_through(machine, target)
    change = put_pointer(machine, f"__SCK__{call}.func", key, stub.address)
    return Planted((change, stub.change), stub.address, {"original": target})


def call_site(
    machine: Machine,
    *,
    function: list[str],
    callee: list[str],
    module: str | None = None,
    where: str = "kvm_amd",
) -> Planted:
    """Turns a direct call or jump from one function to another to a stub.

    The site is found by its bytes: e8 or e9 and the distance to the callee.
    """
    caller = machine.symbols.find(*function, module=module)
    code = machine.memory.read(caller.address, machine.symbols.end(caller) - caller.address)
    targets = {symbol.address: symbol.name for name in callee for symbol in machine.symbols.named(name)}
    for at in range(len(code) - _BRANCH + 1):
        if code[at] not in {_CALL, _JUMP}:
            continue
        site = VirtAddr(caller.address + at)
        target = site + _BRANCH + int.from_bytes(code[at + 1 : at + _BRANCH], "little", signed=True)
        if target in targets:
            stub = direct_pass_through(machine, target, where)
            name = f"{caller.name}+{at:#x} call of {targets[VirtAddr(target)]}"
            change = put(machine, name, site, branch(code[at], site, stub.address))
            return Planted((change, stub.change), stub.address, {"original": target, "function": caller.address})
    raise NotApplicable(f"{caller.name} does not call {' or '.join(callee)}")
