import pytest

from hypervigil.core.errors import MissingDescription
from hypervigil.core.facts import Gap
from hypervigil.linux.files import OpenFile, each_open_file
from hypervigil.linux.tasks import Task, read_task
from hypervigil.memory.kernel import Kernel
from tests.linux.c_types import words
from tests.linux.host_builder import host
from tests.linux.kernel_builder import HEAP, KernelImage

AWAY = HEAP + (1 << 41)


def walked(image: KernelImage, *names: str) -> tuple[list[OpenFile], list[Gap]]:
    kernel = image.open()
    found = list(each_open_file(kernel, threads(kernel, image, *names)))
    return [f for f in found if isinstance(f, OpenFile)], [g for g in found if isinstance(g, Gap)]


def threads(kernel: Kernel, image: KernelImage, *names: str) -> tuple[Task, ...]:
    return tuple(read_task(kernel, image.at[f"task {name}"]) for name in names or ("qemu", "qemu-101"))


def test_open_files_are_read_by_their_numbers() -> None:
    image = host()
    files, gaps = walked(image)
    assert gaps == []
    assert [f.descriptor for f in files] == [3, 4, 5, 6, 7]
    machine = files[1]
    assert (machine.address, machine.private) == (image.at["file 4"], image.at["machine"])
    assert machine.operations == image.at["kvm_vm_fops"]
    assert image.word(machine.operations_at) == machine.operations
    assert machine.process.name == "100 (qemu)"


def test_threads_that_share_a_table_show_its_files_once() -> None:
    image = host()
    assert len(walked(image, "qemu-101", "qemu")[0]) == 5


def test_a_thread_without_files_has_none() -> None:
    assert walked(host(), "systemd", "kthreadd") == ([], [])


def test_a_file_that_is_lost_costs_itself_only() -> None:
    image = host()
    image.poke(image.at["fd table"] + 8 * 4, words(AWAY))
    files, gaps = walked(image)
    assert [f.descriptor for f in files] == [3, 5, 6, 7]
    assert [gap.what for gap in gaps] == ["file 4 of 100 (qemu)"]


@pytest.mark.parametrize(("path", "value"), [("fd", AWAY), ("fd", 0), ("fd", 1 << 63), ("max_fds", 0xFFFF_FFFF)])
def test_a_table_that_is_lost_or_too_long_is_a_gap(path: str, value: int) -> None:
    image = host()
    image.member("fdtable", image.at["fdtable"], path, value)
    files, gaps = walked(image, "qemu", "systemd")
    assert (files, [gap.what for gap in gaps]) == ([], ["open files of 100 (qemu)"])


def test_a_table_of_no_length_has_no_files() -> None:
    image = host()
    image.member("fdtable", image.at["fdtable"], "max_fds", 0)
    assert walked(image) == ([], [])


@pytest.mark.parametrize("value", [AWAY, 0x10, (1 << 64) - 8])
def test_a_pointer_to_files_that_leads_astray_is_a_gap(value: int) -> None:
    image = host()
    image.member("task_struct", image.at["task systemd"], "files", value)
    files, gaps = walked(image, "systemd", "qemu")
    assert len(files) == 5
    assert [gap.what for gap in gaps] == ["open files of 1 (systemd)"]


def test_without_the_types_nothing_is_known() -> None:
    image = host()
    kernel = image.open()
    some = threads(kernel, image)
    kernel.catalogue._sources.clear()
    kernel._types.clear()
    with pytest.raises(MissingDescription, match="struct file"):
        list(each_open_file(kernel, some))
