from hypervigil.core.errors import EvidenceError
from hypervigil.core.facts import Absent
from hypervigil.linux.census import Census
from hypervigil.linux.kvm import Kvm
from tests.linux.host_builder import host, kvm_types, system_of
from tests.linux.kernel_builder import HEAP, KernelImage

AWAY = HEAP + (1 << 41)


def census(image: KernelImage) -> Census:
    return Census(system_of(image))


def kvm_of(found: Census) -> Kvm:
    assert not isinstance(found.kvm, Absent)
    return found.kvm


def test_threads_of_every_view_are_there_by_id() -> None:
    image = host()
    found = census(image).tasks
    assert [task.pid for task in found.items] == [1, 2, 100, 101]
    assert found.gaps == ()


def test_a_thread_that_one_view_alone_shows_is_there() -> None:
    image = host()
    image.unlink(image.at["task kthreadd"] + image.types.offset("task_struct", "tasks"))
    image.member("pid", image.at["pid 2"], "tasks[0].first", 0)
    assert 2 in {task.pid for task in census(image).tasks.items}


def test_a_thread_that_cannot_be_read_is_a_gap() -> None:
    image = host()
    image.member("pid", image.at["pid 2"], "tasks[0].first", AWAY)
    found = census(image).tasks
    assert any(gap.what.startswith("process at ") for gap in found.gaps)
    assert 2 in {task.pid for task in found.items}


def test_queues_that_cannot_be_read_are_a_gap_of_their_view_only() -> None:
    image = host()
    image.symbols.pop("runqueues")
    image.put_tables()
    found = census(image)
    assert isinstance(found.run_queues, EvidenceError)
    (view,) = [v for v in found.task_views if v.name == "run queues"]
    assert (view.seen, view.complete) == (None, False)
    assert [task.pid for task in found.tasks.items] == [1, 2, 100, 101]
    assert [gap.what for gap in found.tasks.gaps] == ["run queues"]


def test_views_that_must_show_everything_are_marked() -> None:
    found = census(host())
    assert {v.name for v in found.task_views if v.complete} == {"task list", "process ids"}
    views = found.machine_views(kvm_of(found))
    assert {v.name for v in views if v.complete} == {"vm_list", "open files", "memory notifiers"}


def test_machines_of_every_view_are_there_once() -> None:
    image = host()
    found = census(image)
    assert found.machines(kvm_of(found)).items == (image.at["machine"],)
    rogue = image.object("kvm", kvm_types())
    image.member("kvm_vcpu", image.at["vcpu"], "kvm", rogue, kvm_types())
    found = census(image)
    assert set(found.machines(kvm_of(found)).items) == {image.at["machine"], rogue}


def test_what_was_not_seen_of_tasks_was_not_seen_of_machines() -> None:
    image = host()
    image.member("pid", image.at["pid 2"], "tasks[0].first", AWAY)
    found = census(image)
    views = {v.name: v for v in found.machine_views(kvm_of(found))}
    for name in ("open files", "memory notifiers"):
        assert set(found.tasks.gaps) <= set(views[name].gaps)
    assert views["vm_list"].gaps == ()


def test_a_file_whose_machine_cannot_be_read_is_a_gap() -> None:
    image = host()
    image.member("file", image.at["file 5"], "private_data", AWAY)
    found = census(image)
    view = found.machine_views(kvm_of(found))[1]
    assert view.seen == frozenset({image.at["machine"]})
    assert [gap.what for gap in view.gaps] == ["machine of file 5 of 100 (qemu)"]


def test_files_that_cannot_be_read_are_gaps_of_the_files() -> None:
    image = host()
    image.poke(image.at["fd table"] + 8 * 4, AWAY.to_bytes(8, "little"))
    found = census(image)
    assert [f.descriptor for f in found.files.items] == [3, 5, 6, 7]
    assert [gap.what for gap in found.files.gaps] == ["file 4 of 100 (qemu)"]
