"""Who is there: every process and every machine, with the views that show it.

All views are walked once; whoever any of them shows counts as there.
"""

from functools import cached_property

from hypervigil.core.errors import EvidenceError
from hypervigil.core.facts import Absent, Gap, Observed
from hypervigil.linux.files import OpenFile, each_open_file
from hypervigil.linux.kvm import Kvm, find_kvm
from hypervigil.linux.machines import (
    listed_machines,
    machine_of_file,
    machines_by_notifier,
    machines_running,
)
from hypervigil.linux.system import System
from hypervigil.linux.tasks import RunQueues, Task, children, listed_tasks, read_task, run_queues, tasks_by_pid
from hypervigil.linux.views import View, take_view


class Census:
    """Processes and machines of a system.

    Args:
        system: the opened kernel with its modules.
    """

    def __init__(self, system: System) -> None:
        self.system = system

    @cached_property
    def run_queues(self) -> RunQueues | EvidenceError:
        """The scheduler's queues, or why they cannot be read."""
        try:
            return run_queues(self.system.kernel)
        except EvidenceError as fault:
            return fault

    @cached_property
    def task_views(self) -> tuple[View, ...]:
        """Every view of threads."""
        kernel = self.system.kernel
        return (
            take_view("task list", lambda: listed_tasks(kernel), complete=True),
            take_view("process ids", lambda: tasks_by_pid(kernel), complete=True),
            take_view("children", lambda: children(kernel), complete=False),
            take_view("run queues", self._ready, complete=False),
        )

    def _ready(self) -> Observed[int]:
        if isinstance(self.run_queues, EvidenceError):
            raise self.run_queues
        return self.run_queues.ready

    @cached_property
    def tasks(self) -> Observed[Task]:
        """Every thread of every view, by id."""
        gaps = [gap for view in self.task_views for gap in view.gaps]
        found: list[Task] = []
        for address in sorted(set().union(*(view.seen or () for view in self.task_views))):
            try:
                found.append(read_task(self.system.kernel, address))
            except EvidenceError as fault:
                gaps.append(Gap(f"process at {address:#x}", str(fault)))
        return Observed(tuple(sorted(found, key=lambda t: (t.pid, t.address))), tuple(gaps))

    @cached_property
    def kvm(self) -> Kvm | Absent:
        """KVM as it is loaded.

        Raises:
            EvidenceError: whether it is loaded cannot be told.
        """
        return find_kvm(self.system)

    @cached_property
    def files(self) -> Observed[OpenFile]:
        """Every open file of every thread."""
        files: list[OpenFile] = []
        gaps: list[Gap] = list(self.tasks.gaps)
        for item in each_open_file(self.system.kernel, self.tasks.items):
            if isinstance(item, Gap):
                gaps.append(item)
            else:
                files.append(item)
        return Observed(tuple(files), tuple(gaps))

    def machine_views(self, kvm: Kvm) -> tuple[View, ...]:
        """Every view of virtual machines."""
        return (
            take_view("vm_list", lambda: listed_machines(kvm), complete=True),
            take_view("open files", lambda: self._machines_with_files(kvm), complete=True),
            take_view("memory notifiers", lambda: self._machines_by_notifier(kvm), complete=True),
            take_view("running processors", lambda: machines_running(kvm), complete=False),
        )

    def _machines_by_notifier(self, kvm: Kvm) -> Observed[int]:
        found = machines_by_notifier(kvm, self.tasks.items)
        return Observed(found.items, found.gaps + self.tasks.gaps)

    def _machines_with_files(self, kvm: Kvm) -> Observed[int]:
        found: dict[int, None] = {}
        gaps: list[Gap] = list(self.files.gaps)
        for file in self.files.items:
            try:
                machine = machine_of_file(kvm, file)
            except EvidenceError as fault:
                gaps.append(Gap(f"machine of file {file.descriptor} of {file.process.name}", str(fault)))
                continue
            if machine:
                found[machine] = None
        return Observed(tuple(found), tuple(gaps))

    def machines(self, kvm: Kvm) -> Observed[int]:
        """Every machine of every view."""
        views = self.machine_views(kvm)
        seen = sorted(set().union(*(view.seen or () for view in views)))
        return Observed(tuple(seen), tuple(gap for view in views for gap in view.gaps))
