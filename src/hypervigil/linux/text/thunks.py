"""Where returns and indirect branches may lead: the thunks against speculation.

``x86_return_thunk`` holds the thunk that this machine chose (arch/x86/kernel/cpu/bugs.c): 15e67227c49a "x86: Undo
return-thunk damage" (5.19 and stable kernels). Indirect branches go through ``__x86_indirect_thunk_REG`` and its kin
(arch/x86/lib/retpoline.S), or through thunks made for each processor on pages of their own: 872df34d7c51 "x86/its: Use
dynamic thunks for indirect branches" (6.15 and stable kernels). On processors whose calls are counted, a direct call
leads to a few bytes before its function, which do that: e81dc127ef69 "x86/callthunks: Add call patching for call depth
tracking" (6.2).
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import drgn
import numpy as np

from hypervigil.core.errors import EvidenceError
from hypervigil.core.units import PAGE_SIZE, VirtAddr
from hypervigil.linux.members import has, number
from hypervigil.linux.system import KERNEL, System
from hypervigil.linux.text.code import I64, U64, Mask, among, gather, is_any
from hypervigil.memory.kernel import Kernel
from hypervigil.memory.space import AddressSpace

_RETURN = "__x86_return_thunk"
_SELECTED = "x86_return_thunk"
_RETURNS = (
    *("srso_return_thunk", "srso_alias_return_thunk", "retbleed_return_thunk", "its_return_thunk"),
    *("call_depth_return_thunk", "__x86_return_skl", "__x86_return_thunk"),
)
_KINDS = ("", "call_", "jump_", "its_")
_REGISTERS = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
COUNTING = ((b"\x65\x48\xc1\x3d", 9), (b"\x65\x48\xc1\x3c\x25", 10))
"""How code that counts a call begins, and its bytes."""

COUNT = 5
"""The last byte of code that counts a call: how far it shifts."""

NOP = 0x90
_MAX_PAGES = 4096


class Thunks(NamedTuple):
    """Thunks of this kernel.

    Attributes:
        returns: where a return may jump, the chosen one first; empty if this kernel has none.
        indirect: where an indirect branch may go instead, ascending.
        registers: the register that each of them branches to, by its number.
        pages: half-open ranges of thunks that were made at run time, by the owner of the branches that use them.
    """

    returns: tuple[int, ...]
    indirect: U64
    registers: I64
    pages: Mapping[str, tuple[tuple[int, int], ...]] = {}

    def register(self, targets: U64) -> I64:
        """The register that each target branches to, -1 where it is none of the kernel's thunks."""
        if not len(self.indirect):
            return np.full(len(targets), -1, np.int64)
        at = np.minimum(np.searchsorted(self.indirect, targets), len(self.indirect) - 1)
        return np.where(self.indirect[at] == targets, self.registers[at], -1)

    def serves(self, owner: str, targets: U64) -> Mask:
        """Which targets are thunks for indirect branches of `owner`."""
        found = among(targets, self.indirect)
        for low, high in self.pages.get(owner, ()):
            found |= (targets >= np.uint64(low)) & (targets < np.uint64(high))
        return found


def counted(space: AddressSpace, targets: U64, functions: U64) -> Mask:
    """Which targets are the bytes before their function that count the call: ``sarq $5, %gs:DEPTH``.

    Bytes of as many nops, which stand there until they do, are the function as well.
    """
    before = (functions - targets).astype(np.int64)
    found: Mask = np.zeros(len(targets), np.bool_)
    for opening, size in COUNTING:
        chosen = np.flatnonzero(before == size)
        rows = gather(space, targets[chosen], size).rows
        found[chosen] = is_any(rows, opening) & (rows[:, -1] == COUNT) | is_any(rows, bytes([NOP]) * size)
    return found


def read_thunks(system: System) -> Thunks:
    """Read which return thunk is in use, and every thunk for indirect branches.

    Where the variable cannot be read, every return thunk that this kernel has counts.
    """
    symbols = system.kernel.symbols
    numbers = {
        int(at): number
        for kind in _KINDS
        for number, register in enumerate(_REGISTERS)
        if (at := symbols.find(f"__x86_indirect_{kind}thunk_{register}")) is not None
    }
    indirect = sorted(numbers)
    pages = {
        name: tuple(found)
        for name in (KERNEL, *(m.name for m in system.modules.items))
        if (found := _pages(system, name))
    }
    return Thunks(
        _returns(system.kernel),
        np.array(indirect, np.uint64),
        np.array([numbers[at] for at in indirect], np.int64),
        pages,
    )


def _returns(kernel: Kernel) -> tuple[int, ...]:
    built_in = kernel.symbols.find(_RETURN)
    found = [] if built_in is None else [int(built_in)]
    known = [int(at) for name in _RETURNS if (at := kernel.symbols.find(name)) is not None]
    variable = kernel.symbols.find(_SELECTED)
    if variable is None:
        return tuple(found)
    try:
        chosen = kernel.space.u64(variable)
    except EvidenceError:
        return tuple(dict.fromkeys([*known, *found]))
    return tuple(dict.fromkeys([*(one for one in known if one == chosen), *found]))


def _pages(system: System, owner: str) -> list[tuple[int, int]]:
    """Pages of dynamic thunks: ``mod->its_page_array``, since 6.16 ``mod->arch.its_pages``; the kernel's ``its_pages``.

    0b0cae7119a0 "x86/its: move its_pages array to struct mod_arch_specific" (6.16).
    """
    try:
        return [(page, page + PAGE_SIZE) for page in _each_page(system, owner)]
    except EvidenceError:  # without them their branches count as foreign
        return []


def _each_page(system: System, owner: str) -> Iterator[int]:
    kernel = system.kernel
    if owner == KERNEL:
        variable = kernel.symbols.find("its_pages")
        if variable is None:
            return
        pages = kernel.object("struct its_array", variable)
        array, count = number(pages, "pages"), number(pages, "num")
    else:
        module = system.module(owner)
        array, count = (0, 0) if module is None else _of_module(kernel.object("struct module", module.address))
    for index in range(min(count, _MAX_PAGES)):
        yield kernel.space.u64(VirtAddr(array + 8 * index))


def _of_module(thing: drgn.Object) -> tuple[int, int]:
    if has(thing, "its_page_array"):
        return number(thing, "its_page_array"), number(thing, "its_num_pages")
    if has(thing, "arch.its_pages"):
        return number(thing, "arch.its_pages.pages"), number(thing, "arch.its_pages.num")
    return 0, 0
