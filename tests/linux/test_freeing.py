"""Memory of modules that a thread is just freeing, as its stack shows."""

import pytest

from hypervigil.core.units import PAGE_SIZE
from hypervigil.linux.executable import Claim
from hypervigil.linux.freeing import FREED, memory_being_freed
from hypervigil.linux.tasks import Task
from hypervigil.linux.vmap import VmapArea
from tests.linux.c_types import CTypes, words
from tests.linux.host_builder import host, system_of
from tests.linux.kernel_builder import HEAP, KernelImage
from tests.linux.linux_types import KERNEL
from tests.linux.module_builder import FIRST

INIT = FIRST + 0x60_0000
AREAS = (VmapArea(INIT, INIT + 3 * PAGE_SIZE),)
UNFORMED = 3
DUMMY = FIRST + 0x4_0000
DEEP = 0x2000
TYPES = {
    **KERNEL,
    "thread_struct": "sp:u64",
    "task_struct": f"{KERNEL['task_struct']} stack:ptr thread:thread_struct",
    "llist_node": "next:ptr",
    "mod_initfree": "node:llist_node init_text:ptr init_data:ptr",
}


def waiting(image: KernelImage, function: str, *pointers: int, deep: int = DEEP, away: int = 4) -> Task:
    """A thread whose stack holds a way back into a function and, behind it, pointers."""
    stack = image.heap(bytes(1 << 14))
    frame = words(*pointers, image.symbols[function][0] + away)
    image.poke(stack + DEEP, frame)
    task = image.object("task_struct", stack=stack, thread__sp=stack + deep)
    return Task(address=task, pid=948, tgid=948, comm="rmmod", leader=True, exiting=False, mm=0)


def made(**types: str) -> KernelImage:
    image = host()
    image.types = CTypes({**TYPES, **types})
    for name in ("free_module", "do_free_init", "what_follows"):
        image.function(name)
    image.put_tables()
    image.member("module", image.at["module dummy"], "state", UNFORMED)
    return image


def freed(image: KernelImage, *tasks: Task) -> list[Claim]:
    return list(memory_being_freed(system_of(image), tasks, AREAS))


def test_a_module_that_a_thread_is_unloading_owns_its_memory_still() -> None:
    image = made()
    found = freed(image, waiting(image, "free_module", 0, HEAP, image.at["module dummy"]))
    assert [c.start for c in found] == [DUMMY, DUMMY + 0x8000, DUMMY + 0x1_0000]
    assert {(c.owner, c.kind) for c in found} == {("module dummy, which process 948 (rmmod) is unloading", FREED)}


@pytest.mark.parametrize(
    "alter",
    [
        lambda image, module: waiting(image, "do_free_init", module),
        lambda image, module: waiting(image, "free_module", module, away=0),
        lambda image, module: waiting(image, "free_module", module, away=16),
        lambda image, module: waiting(image, "free_module", module, deep=DEEP + 0x10),
        lambda image, module: waiting(image, "free_module", module, deep=-8),
        lambda image, module: waiting(image, "free_module", module, deep=DEEP + 4),
        lambda image, module: waiting(image, "free_module", module + 8),
        lambda image, module: waiting(image, "free_module", image.at["module kvm"], module & 1),
    ],
)
def test_what_shows_no_unloading_excuses_nothing(alter: object) -> None:
    image = made()
    assert callable(alter)
    assert freed(image, alter(image, image.at["module dummy"])) == []


def test_a_structure_outside_of_its_own_memory_is_no_module() -> None:
    image = made()
    copy = image.heap(image.peek(image.at["module dummy"], image.types.size("module")))
    assert freed(image, waiting(image, "free_module", copy)) == []


@pytest.mark.parametrize("member", ["init_text", "module_init"])
def test_init_text_on_the_chain_of_what_is_freed_belongs_to_who_frees_it(member: str) -> None:
    image = made(mod_initfree=f"node:llist_node {member}:ptr")
    last = image.object("mod_initfree", **{member: INIT})
    first = image.object("mod_initfree", **{member: INIT + 0x10_0000})
    image.member("mod_initfree", first, "node.next", last)
    image.member("mod_initfree", last, "node.next", first)
    (found,) = freed(image, waiting(image, "do_free_init", first))
    what = "init text of a module, which process 948 (rmmod) is freeing"
    assert found == Claim(INIT, INIT + 3 * PAGE_SIZE, what, FREED)


def test_a_kernel_without_these_functions_or_whose_stacks_are_lost_says_nothing() -> None:
    assert list(memory_being_freed(system_of(host()), (), AREAS)) == []
    image = made()
    task = waiting(image, "free_module", image.at["module dummy"])
    image.member("task_struct", task.address, "stack", HEAP + (1 << 41))
    image.member("task_struct", task.address, "thread.sp", HEAP + (1 << 41) + 64)
    assert freed(image, task) == []
