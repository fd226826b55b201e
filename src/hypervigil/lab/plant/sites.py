"""Places that the kernel patches itself (returns, alternatives, jump labels), with what it would never put there.

Where they are is read from the packaged module's own tables.
"""

from hypervigil.core.units import VirtAddr
from hypervigil.lab.encoding import movable
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.machine import Machine
from hypervigil.lab.plant.change import put
from hypervigil.lab.plant.packaged import PackagedModule
from hypervigil.lab.plant.stub import branch, direct_pass_through, only_returns
from hypervigil.lab.truth import Planted

_JUMP = 0xE9
_RETURN = 0xC3
_BRANCH = 5
_NOP5 = bytes.fromhex("0f1f440000")


def return_site(machine: Machine, *, module: str, function: list[str]) -> Planted:
    """Makes a function return through a stub that is a bare `ret`, not through the kernel's return thunk.

    Source: arch/x86/kernel/alternative.c, `apply_returns`: a site is `ret` and int3, or a jump to the thunk.
    """
    symbol = machine.symbols.find(*function, module=module)
    end = machine.symbols.end(symbol)
    for _, site in PackagedModule(machine, module).each_place(".return_sites"):
        if symbol.address <= site < end and machine.memory.read(site, 1)[0] in {_JUMP, _RETURN}:
            stub = only_returns(machine, module)
            change = put(machine, f"{symbol.name} return", site, branch(_JUMP, site, stub.address))
            return Planted((change, stub.change), stub.address, {"function": symbol.address})
    raise NotApplicable(f"{symbol.name} has no return site")


def alternative(machine: Machine, *, module: str) -> Planted:
    """Puts a jump at an alternative's site; the stub does what was there and jumps back.

    Source: arch/x86/include/asm/alternative.h, `struct alt_instr`: two place-relative offsets come first, the length
    of the site is the last byte but one, or but two before "x86/alternatives: Optimize optimize_nops()" took padlen
    away (5.13).
    """
    packaged = PackagedModule(machine, module)
    table = packaged.section(".altinstructions").data()
    stride = 2 * len(table) // packaged.count(".altinstructions")
    length_at = stride - (3 if stride % 2 else 2)
    for offset, site in packaged.each_place(".altinstructions"):
        at, rest = divmod(offset, stride)
        length = table[at * stride + length_at]
        if rest == 0 and length >= _BRANCH:
            planted = _jump_over(machine, module, site, length, "alternative")
            if planted is not None:
                return planted
    raise NotApplicable(f"{module} has no alternative that can hold a jump")


def jump_label(machine: Machine, *, module: str) -> Planted:
    """Turns a jump label's site to a stub that jumps to where the code went on before.

    Source: include/linux/jump_label.h, `struct jump_entry`: place-relative code, target, and key, 16 bytes in all.
    """
    for offset, site in PackagedModule(machine, module).each_place("__jump_table"):
        if offset % 16 == 0:
            planted = _jump_over(machine, module, site, _BRANCH, "jump label", exact=_NOP5)
            if planted is not None:
                return planted
    raise NotApplicable(f"{module} has no jump label of five bytes")


def _jump_over(
    machine: Machine, module: str, site: VirtAddr, length: int, what: str, exact: bytes | None = None
) -> Planted | None:
    code = machine.memory.read(site, length)
    if code[0] == _JUMP:
        target = site + _BRANCH + int.from_bytes(code[1:_BRANCH], "little", signed=True)
        carried, used = b"", _BRANCH
    else:
        moved = movable(code)
        if moved is None or exact not in {None, moved}:
            return None
        carried, used = moved, len(moved)
        target = site + used
    stub = direct_pass_through(machine, target, module, carried)
    name = f"{machine.symbols.name_of(site)} {what}"
    change = put(machine, name, site, branch(_JUMP, site, stub.address).ljust(used, b"\x90"))
    return Planted((change, stub.change), stub.address, {"original": target, "site": site})
