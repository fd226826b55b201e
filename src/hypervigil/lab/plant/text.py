"""Changed code: entries of functions and the sites that the kernel itself patches."""

from hypervigil.core.errors import UsageError
from hypervigil.core.units import VirtAddr
from hypervigil.lab.encoding import movable, same_meaning
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.machine import Machine
from hypervigil.lab.plant.change import put
from hypervigil.lab.plant.packaged import PackagedModule
from hypervigil.lab.plant.stub import branch, direct_pass_through, only_returns
from hypervigil.lab.symbols import Symbol
from hypervigil.lab.truth import Change, Planted

_ENDBR = bytes.fromhex("f30f1efa")
_SEALED = (bytes.fromhex("660f1f00"), bytes.fromhex("0f1f40d6"))
_NOP5 = bytes.fromhex("0f1f440000")
_BRANCH = 5
_LOOK = 64


def ftrace_entry(machine: Machine, names: list[str], module: str | None = None) -> tuple[Symbol, VirtAddr]:
    """The function and the address of its ftrace site, after an `endbr64` or what sealing puts in its place.

    Source: arch/x86/include/asm/ibt.h, `gen_endbr_poison` (nopw before "x86/ibt: Clean up is_endbr()" of 6.15).
    """
    symbol = machine.symbols.find(*names, module=module)
    first = machine.memory.read(symbol.address, len(_ENDBR))
    return symbol, VirtAddr(symbol.address + (len(_ENDBR) if first in {_ENDBR, *_SEALED} else 0))


def ftrace_site(machine: Machine, *, function: list[str], where: str = "kvm_amd") -> Planted:
    """Makes the five-byte nop at a function's entry a call to code that only returns, with nobody registered."""
    symbol, site = ftrace_entry(machine, function)
    if machine.memory.read(site, _BRANCH) != _NOP5:
        raise NotApplicable(f"{symbol.name} has no idle ftrace site")
    stub = only_returns(machine, where)
    change = put(machine, f"{symbol.name} ftrace site", site, branch(0xE8, site, stub.address))
    return Planted((change, stub.change), stub.address, {"function": symbol.address})


def detour(machine: Machine, *, function: list[str], module: str | None = None, where: str = "kvm_amd") -> Planted:
    """Overwrites a function's first real instructions with a jump to a stub that carries them out and jumps back."""
    for name in function:
        if not machine.symbols.named(name, module):
            continue
        symbol, site = ftrace_entry(machine, [name], module)
        if machine.memory.read(site, _BRANCH) == _NOP5:
            site = VirtAddr(site + _BRANCH)
        displaced = movable(machine.memory.read(site, _LOOK))
        if displaced is None:
            continue
        stub = direct_pass_through(machine, site + len(displaced), where, displaced)
        code = branch(0xE9, site, stub.address).ljust(len(displaced), b"\x90")
        change = put(machine, f"{symbol.name} entry", site, code)
        return Planted((change, stub.change), stub.address, {"function": symbol.address})
    raise NotApplicable(f"none of {', '.join(function)} begins with instructions that can be moved")


def other_encoding(machine: Machine, *, function: list[str], module: str) -> Planted:
    """Replaces one instruction of a function by another encoding of the same instruction."""
    symbol, site = ftrace_entry(machine, function, module)
    start = site - symbol.address + _BRANCH
    code = machine.memory.read(symbol.address, machine.symbols.end(symbol) - symbol.address)
    found = same_meaning(code, start)
    if found is None:
        raise NotApplicable(f"{symbol.name} has no move between registers")
    at, new = found
    change = put(machine, f"{symbol.name}+{at:#x}", VirtAddr(symbol.address + at), new)
    return Planted((change,), values={"function": symbol.address})


def trojaned(machine: Machine, *, module: str, function: str) -> Planted:
    """Says what a module that was altered before it was loaded holds, beside its package; plants nothing."""
    address, packaged = PackagedModule(machine, module).function(function)
    found = same_meaning(packaged, 0)
    if found is None:
        raise NotApplicable(f"{function} has no move between registers")
    at, expected = found
    place = VirtAddr(address + at)
    loaded = machine.peek(place, len(expected))
    if loaded != expected:
        raise UsageError(f"{function} was not altered before it was loaded: {loaded.hex()}")
    change = Change(f"{function}+{at:#x}", place, packaged[at : at + len(expected)].hex(), loaded.hex())
    return Planted((change,), values={"function": address})
