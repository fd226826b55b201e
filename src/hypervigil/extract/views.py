"""Cross-views of modules, processes and machines as facts."""

from collections.abc import Callable, Iterable, Iterator

from hypervigil.core.errors import EvidenceError
from hypervigil.core.facts import Absent, Gap
from hypervigil.extract.loading import Subject, extracts
from hypervigil.facts.hypervisor import KvmMachines
from hypervigil.facts.kernel import Modules, Tasks
from hypervigil.facts.views import Member
from hypervigil.linux.members import number
from hypervigil.linux.system import System
from hypervigil.linux.tasks import Task
from hypervigil.linux.views import View


@extracts(Modules)
def modules(subject: Subject) -> Modules:
    """Modules of all views; one that is coming or going may be missing from some."""
    system = subject.system
    known = {module.address: module for module in system.modules.items}

    def name(address: int) -> str:
        return known[address].name if address in known else f"at {address:#x}"

    def excuse(address: int) -> str:
        return "" if address not in known or known[address].state == "live" else f"it is {known[address].state}"

    names, members, gaps = _members(system, system.module_views, "struct module", name, excuse)
    kept = tuple(member for member in members if member.key in known)
    every = {*gaps, *system.modules.gaps, *_of_another_s_name(system, known)}
    return Modules(views=names, members=kept, gaps=tuple(sorted(every)))


def _of_another_s_name(system: System, known: Iterable[int]) -> Iterator[Gap]:
    """What views show and `System.modules` left out without a word: a module that calls itself as another does."""
    seen = set().union(*(view.seen or () for view in system.module_views))
    told = {gap.what for gap in system.modules.gaps}
    for address in seen - set(known):
        if (what := f"module at {address:#x}") not in told:
            yield Gap(what, "it has the name of another module")


@extracts(Tasks)
def tasks(subject: Subject) -> Tasks:
    """Threads of all views; one that exits may be missing from some, and so may threads from lists of processes."""
    census = subject.census
    known = {task.address: task for task in census.tasks.items}
    idle = _idle(subject)

    def name(address: int) -> str:
        return known[address].name if address in known else f"at {address:#x}"

    def excuse(address: int) -> str:
        task: Task | None = known.get(address)
        return "it exits" if task is not None and task.exiting else ""

    views = tuple(
        View(name=v.name, complete=v.complete, seen=None if v.seen is None else v.seen - idle, gaps=v.gaps)
        for v in census.task_views
    )
    names, members, gaps = _members(subject.system, views, "struct task_struct", name, excuse)
    kept = tuple(member for member in members if member.key in known)
    return Tasks(views=names, members=kept, gaps=tuple(sorted({*gaps, *census.tasks.gaps})))


def _idle(subject: Subject) -> frozenset[int]:
    """Idle tasks stand on no list by design; they count as such only while they have process id 0."""
    queues = subject.census.run_queues
    if isinstance(queues, EvidenceError):
        return frozenset()
    kernel = subject.system.kernel
    found = set()
    for address in queues.idle:
        try:
            if number(kernel.object("struct task_struct", address), "pid") == 0:
                found.add(address)
        except EvidenceError:
            continue
    return frozenset(found)


@extracts(KvmMachines)
def kvm_machines(subject: Subject) -> KvmMachines | Absent:
    """Machines of all views."""
    kvm = subject.census.kvm
    if isinstance(kvm, Absent):
        return kvm
    views = subject.census.machine_views(kvm)
    kernel = subject.system.kernel

    def name(address: int) -> str:
        try:
            return f"{address:#x} of process {number(kernel.object('struct kvm', address), 'userspace_pid')}"
        except EvidenceError:
            return f"{address:#x}"

    names, members, gaps = _members(subject.system, views, "struct kvm", name, lambda _: "")
    return KvmMachines(views=names, members=tuple(members), gaps=gaps)


def _members(
    system: System,
    views: tuple[View, ...],
    type_name: str,
    name: Callable[[int], str],
    excuse: Callable[[int], str],
) -> tuple[tuple[str, ...], list[Member], tuple[Gap, ...]]:
    """Put views together: a view that could not be walked is left out, and is a gap if everything must be in it."""
    walked = [view for view in views if view.seen is not None]
    names = tuple(view.name for view in walked)
    gaps = [gap for view in views if view.complete or view.seen is not None for gap in view.gaps]
    members = []
    for address in sorted(set().union(*(view.seen or () for view in walked))):
        seen = tuple(view.name for view in walked if view.seen is not None and address in view.seen)
        try:
            span = system.spans(address, system.kernel.type(type_name).size or 1)
        except EvidenceError as fault:
            gaps.append(Gap(f"what {' and '.join(seen)} show at {address:#x}", str(fault)))
            continue
        excused = tuple(f"{view.name}: {why}" for view in walked if (why := excuse(address) or _excuse(view)))
        members.append(Member(key=address, name=name(address), views=seen, span=span, excused=excused))
    return names, members, tuple(gaps)


def _excuse(view: View) -> str:
    """Why a view may lack something: it need not show everything, or it could not be walked to its end."""
    if view.gaps:
        return "it could not be walked to its end"
    return "" if view.complete else "it need not show everything"
