"""Processes of a kernel under construction, with every structure that shows them."""

from collections.abc import Sequence

from hypervigil.core.units import PAGE_SIZE
from tests.linux.c_types import words
from tests.linux.kernel_builder import HEAP, KernelImage

_SLOTS = 64


class Process(dict[int, int]):
    """A process: address of each of its threads by id, the leader first."""


class Tasks:
    """Processes, each with threads; `knit` links them up.

    Attributes:
        root: ``init_task``.
    """

    def __init__(self, kernel: KernelImage) -> None:
        self.kernel = kernel
        self.root = kernel.variable("init_task", "task_struct", comm=b"swapper/0")
        kernel.member("task_struct", self.root, "group_leader", self.root)
        kernel.at["init_task"] = self.root
        self._pids: dict[int, int] = {}
        self._leaders: list[int] = []
        self._children: dict[int, list[int]] = {self.root: []}

    def process(self, comm: str, pids: Sequence[int], parent: int, mm: int = 0, files: int = 0) -> int:
        """A process with a thread for each id; return its leader."""
        kernel = self.kernel
        signal = kernel.object("signal_struct", count=len(pids))
        threads: list[int] = []
        for pid in pids:
            name = comm if pid == pids[0] else f"{comm}-{pid}"
            task = kernel.object("task_struct", pid=pid, tgid=pids[0], comm=name.encode(), mm=mm, files=files)
            kernel.set("task_struct", task, signal=signal, group_leader=threads[0] if threads else task)
            threads.append(task)
            self._pids[pid] = task
            self._children[task] = []
            kernel.at[f"task {name}"] = task
        offset = kernel.types.offset
        head = signal + offset("signal_struct", "thread_head")
        kernel.link(head, *(task + offset("task_struct", "thread_node") for task in threads))
        self._leaders.append(threads[0])
        self._children[parent].append(threads[0])
        return threads[0]

    def knit(self) -> None:
        """Make the list of tasks, the lists of children and the table of process ids."""
        kernel, offset = self.kernel, self.kernel.types.offset
        tasks, below, beside = (offset("task_struct", m) for m in ("tasks", "children", "sibling"))
        kernel.link(self.root + tasks, *(leader + tasks for leader in self._leaders))
        for parent, children in self._children.items():
            kernel.link(parent + below, *(child + beside for child in children))
        kernel.variable("init_pid_ns", "pid_namespace", idr__idr_rt__xa_head=self._pid_table())

    def _pid_table(self) -> int:
        """A tree of two levels, as it is for ids up to 4095."""
        kernel = self.kernel
        leaves: dict[int, int] = {}
        root = kernel.object("xa_node", shift=6)
        for pid, task in self._pids.items():
            link = task + kernel.types.offset("task_struct", "pid_links[0]")
            address = kernel.object("pid", count=1)
            kernel.member("pid", address, "tasks[0].first", link)
            kernel.member("task_struct", task, "pid_links[0].pprev", address + kernel.types.offset("pid", "tasks"))
            kernel.at[f"pid {pid}"] = address
            leaf = leaves.setdefault(pid // _SLOTS, 0) or kernel.object("xa_node")
            leaves[pid // _SLOTS] = leaf
            kernel.member("xa_node", leaf, f"slots[{pid % _SLOTS}]", address)
            kernel.member("xa_node", root, f"slots[{pid // _SLOTS}]", leaf | 2)
        kernel.at["pid table"] = root
        return root | 2


def memory_of_a_process(kernel: KernelImage, notifiers: int = 0) -> int:
    """A ``struct mm_struct`` whose page tables share the kernel's half."""
    frame = kernel.frame()
    half = kernel.root + PAGE_SIZE // 2
    kernel.data[frame + PAGE_SIZE // 2 : frame + PAGE_SIZE] = kernel.data[half : half + PAGE_SIZE // 2]
    return kernel.object("mm_struct", count=1, pgd=HEAP + frame, notifier_subscriptions=notifiers)


def files_of_a_process(kernel: KernelImage, *files: tuple[int, int]) -> int:
    """A table of open files, each ``(f_op, private_data)``, from descriptor 3 on; return ``struct files_struct``."""
    opened = [kernel.object("file", mode=1, f_op=operations, private_data=private) for operations, private in files]
    table = kernel.heap(words(0, 0, 0, *opened, 0))
    kernel.at |= {f"file {3 + index}": address for index, address in enumerate(opened)}
    kernel.at["fd table"] = table
    fdt = kernel.object("fdtable", max_fds=4 + len(opened), fd=table)
    kernel.at["fdtable"] = fdt
    return kernel.object("files_struct", count=1, fdt=fdt)
