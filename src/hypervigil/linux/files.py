"""Open files of processes (include/linux/fdtable.h, include/linux/fs.h)."""

from collections.abc import Iterator

import msgspec
import numpy as np

from hypervigil.core.errors import EvidenceError
from hypervigil.core.facts import Gap
from hypervigil.core.units import VirtAddr
from hypervigil.linux.members import number, offset_of
from hypervigil.linux.tasks import Task
from hypervigil.memory.kernel import Kernel

_MAX_FILES = 1 << 20


class OpenFile(msgspec.Struct, frozen=True, kw_only=True):
    """One open file of a process.

    Attributes:
        process: who has it open.
        descriptor: its number.
        address: virtual address of its ``struct file``.
        operations: where ``f_op`` leads.
        operations_at: address of the pointer ``f_op``.
        private: ``private_data``.
    """

    process: Task
    descriptor: int
    address: int
    operations: int
    operations_at: int
    private: int


def each_open_file(kernel: Kernel, tasks: tuple[Task, ...]) -> Iterator[OpenFile | Gap]:
    """Every open file of the given threads, once per table of files, beside what could not be read.

    Raises:
        MissingDescription: the types of files are not known.
    """
    seen: set[int] = set()
    reader = _Reader(kernel)
    for task in tasks:
        try:
            files = number(kernel.object("struct task_struct", task.address), "files")
            if not files or files in seen:
                continue
            seen.add(files)
            yield from reader.files(task, files)
        except EvidenceError as fault:
            yield Gap(f"open files of {task.name}", str(fault))


class _Reader:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        kind = kernel.type("struct file")
        self._operations = offset_of(kind, "f_op")
        self._private = offset_of(kind, "private_data")

    def files(self, task: Task, address: int) -> Iterator[OpenFile | Gap]:
        table = self._kernel.object(
            "struct fdtable", number(self._kernel.object("struct files_struct", address), "fdt")
        )
        count = min(number(table, "max_fds"), _MAX_FILES)
        if not count:
            return
        data = self._kernel.space.read(VirtAddr(number(table, "fd")), 8 * count)
        pointers = np.frombuffer(data, "<u8")
        for descriptor in np.flatnonzero(pointers).tolist():
            try:
                yield self._file(task, descriptor, int(pointers[descriptor]))
            except EvidenceError as fault:
                yield Gap(f"file {descriptor} of {task.name}", str(fault))

    def _file(self, task: Task, descriptor: int, address: int) -> OpenFile:
        return OpenFile(
            process=task,
            descriptor=descriptor,
            address=address,
            operations=self._kernel.space.u64(VirtAddr(address + self._operations)),
            operations_at=address + self._operations,
            private=self._kernel.space.u64(VirtAddr(address + self._private)),
        )
