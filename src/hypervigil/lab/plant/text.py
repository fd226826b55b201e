"""Changed code: entries of functions and the sites that the kernel itself patches."""

import capstone

from hypervigil.core.units import VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.machine import Machine
from hypervigil.lab.plant.change import Planted, put
from hypervigil.lab.plant.stub import branch, direct_pass_through, only_returns
from hypervigil.lab.symbols import Symbol

_ENDBR = bytes.fromhex("f30f1efa")
_NOP5 = bytes.fromhex("0f1f440000")
_BRANCH = 5
_LOOK = 64


def _entry(machine: Machine, names: list[str], module: str | None = None) -> tuple[Symbol, VirtAddr]:
    """The function and the address of its ftrace site (after an `endbr64`, if it begins with one)."""
    symbol = machine.symbols.find(*names, module=module)
    first = machine.memory.read(symbol.address, len(_ENDBR))
    return symbol, VirtAddr(symbol.address + (len(_ENDBR) if first == _ENDBR else 0))


def ftrace_site(machine: Machine, *, function: list[str], where: str = "kvm_amd") -> Planted:
    """Makes the five-byte nop at a function's entry a call to code that only returns, with nobody registered."""
    symbol, site = _entry(machine, function)
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
        symbol, site = _entry(machine, [name], module)
        if machine.memory.read(site, _BRANCH) == _NOP5:
            site = VirtAddr(site + _BRANCH)
        displaced = _movable(machine.memory.read(site, _LOOK))
        if displaced is None:
            continue
        stub = direct_pass_through(machine, site + len(displaced), where, displaced)
        code = branch(0xE9, site, stub.address).ljust(len(displaced), b"\x90")
        change = put(machine, f"{symbol.name} entry", site, code)
        return Planted((change, stub.change), stub.address, {"function": symbol.address})
    raise NotApplicable(f"none of {', '.join(function)} begins with instructions that can be moved")


def _movable(code: bytes) -> bytes | None:
    """The whole instructions that cover the first five bytes, if all of them mean the same elsewhere."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    size = 0
    for _, length, mnemonic, operands in decoder.disasm_lite(code, 0):
        if "rip" in operands or mnemonic[0] == "j" or mnemonic in {"call", "ret", "int3", "loop"}:
            return None
        size += length
        if size >= _BRANCH:
            return code[:size]
    return None
