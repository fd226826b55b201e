import drgn
import pytest

from hypervigil.core.errors import EvidenceError, MissingDescription, MissingMemory
from hypervigil.core.facts import Observed
from hypervigil.linux import members
from hypervigil.linux import tasks as module
from hypervigil.linux.tasks import Task, children, listed_tasks, read_task, run_queues, tasks_by_pid
from tests.linux.c_types import words
from tests.linux.host_builder import host
from tests.linux.kernel_builder import HEAP, KernelImage

AWAY = HEAP + (1 << 41)


def names(image: KernelImage, found: Observed[int]) -> set[str]:
    known = {address: name.removeprefix("task ") for name, address in image.at.items() if name.startswith("task ")}
    return {known.get(address, hex(address)) for address in found.items}


def test_a_task_is_read_whole() -> None:
    image = host()
    address = image.at["task qemu-101"]
    found = read_task(image.open(), address)
    assert found == Task(
        address=address, pid=101, tgid=100, comm="qemu-101", leader=False, exiting=False, mm=image.at["mm"]
    )
    assert found.name == "101 (qemu-101)"
    assert read_task(image.open(), image.at["task qemu"]).leader


@pytest.mark.parametrize(("state", "exiting"), [(0, False), (16, True), (32, True)])
def test_a_task_that_has_begun_to_exit_says_so(state: int, exiting: bool) -> None:  # noqa: FBT001 - a case
    image = host()
    image.member("task_struct", image.at["task systemd"], "exit_state", state)
    assert read_task(image.open(), image.at["task systemd"]).exiting == exiting


def test_a_task_that_is_lost_cannot_be_read() -> None:
    with pytest.raises(MissingMemory):
        read_task(host().open(), AWAY)


def test_the_list_shows_every_thread_of_every_process() -> None:
    image = host()
    found = listed_tasks(image.open())
    assert names(image, found) == {"systemd", "kthreadd", "qemu", "qemu-101"}
    assert found.gaps == ()


def test_a_process_whose_threads_cannot_be_walked_is_a_gap() -> None:
    image = host()
    image.member("task_struct", image.at["task qemu"], "signal", AWAY)
    found = listed_tasks(image.open())
    assert names(image, found) == {"systemd", "kthreadd", "qemu"}
    assert [gap.what for gap in found.gaps] == [f"threads of {image.at['task qemu']:#x}"]


def test_a_process_that_cannot_be_asked_for_its_threads_is_a_gap_and_the_others_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = host()
    lost = image.at["task kthreadd"]

    def number(thing: drgn.Object, *paths: str) -> int:
        if thing.address_ == lost and paths == ("signal",):
            raise MissingMemory(lost, 8)
        return members.number(thing, *paths)

    monkeypatch.setattr("hypervigil.linux.tasks.number", number)
    found = listed_tasks(image.open())
    assert names(image, found) == {"systemd", "kthreadd", "qemu", "qemu-101"}
    assert [gap.what for gap in found.gaps] == [f"threads of {lost:#x}"]


def test_a_list_of_threads_that_is_broken_keeps_what_it_showed() -> None:
    image = host()
    node = image.types.offset("task_struct", "thread_node")
    image.poke(image.at["task qemu-101"] + node, words(image.at["task qemu"] + node))
    found = listed_tasks(image.open())
    assert "qemu-101" in names(image, found)
    assert [gap.what for gap in found.gaps] == [f"threads of {image.at['task qemu']:#x}"]


def test_a_task_list_that_is_cut_is_a_gap() -> None:
    image = host()
    image.poke(image.at["task kthreadd"] + image.types.offset("task_struct", "tasks"), words(0))
    found = listed_tasks(image.open())
    assert names(image, found) == {"systemd", "kthreadd"}
    assert [gap.what for gap in found.gaps] == ["task list"]


def test_the_table_of_ids_shows_every_thread() -> None:
    image = host()
    found = tasks_by_pid(image.open())
    assert names(image, found) == {"systemd", "kthreadd", "qemu", "qemu-101"}
    assert found.gaps == ()


def test_an_id_without_a_thread_shows_none_and_one_that_is_lost_is_a_gap() -> None:
    image = host()
    image.member("pid", image.at["pid 2"], "tasks[0].first", 0)
    image.member(
        "xa_node", image.word(image.at["pid table"] + image.types.offset("xa_node", "slots[1]")) - 2, "slots[36]", AWAY
    )
    found = tasks_by_pid(image.open())
    assert names(image, found) == {"systemd", "qemu-101"}
    assert [gap.what for gap in found.gaps] == [f"process id at {AWAY:#x}"]


def test_an_array_of_ids_that_is_broken_is_a_gap() -> None:
    image = host()
    image.member("xa_node", image.at["pid table"], "slots[1]", AWAY | 2)
    found = tasks_by_pid(image.open())
    assert names(image, found) == {"systemd", "kthreadd"}
    assert [gap.what for gap in found.gaps] == ["process ids"]


def test_children_are_found_from_the_idle_task_on() -> None:
    image = host()
    found = children(image.open())
    assert names(image, found) == {"systemd", "kthreadd", "qemu"}
    assert found.gaps == ()


def test_a_child_of_a_thread_is_found() -> None:
    image = host()
    offset = image.types.offset
    hidden = image.object("task_struct", pid=7, comm=b"hidden")
    image.link(image.at["task qemu-101"] + offset("task_struct", "children"), hidden + offset("task_struct", "sibling"))
    image.link(hidden + offset("task_struct", "children"))
    assert hidden in children(image.open()).items


def test_a_child_of_a_hidden_child_is_found() -> None:
    image = host()
    below, beside = (image.types.offset("task_struct", name) for name in ("children", "sibling"))
    hidden, last = (image.object("task_struct", pid=pid, comm=b"hidden") for pid in (7, 8))
    image.link(image.at["task qemu-101"] + below, hidden + beside)
    image.link(hidden + below, last + beside)
    image.link(last + below)
    found = children(image.open())
    assert {hidden, last} <= set(found.items)
    assert found.gaps == ()


def test_children_that_lead_back_end() -> None:
    image = host()
    offset = image.types.offset
    image.link(
        image.at["task kthreadd"] + offset("task_struct", "children"),
        image.at["task systemd"] + offset("task_struct", "sibling"),
    )
    found = children(image.open())
    assert len(set(found.items)) == len(found.items)
    assert found.gaps  # the one list that lost its entry to the other does not come back to its head


def test_no_more_parents_are_asked_than_any_system_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_TASKS", 1)
    image = host()
    assert len(children(image.open()).items) <= 3


def test_run_queues_name_idle_and_ready_tasks() -> None:
    image = host()
    found = run_queues(image.open())
    assert found.idle == {image.at["init_task"], image.at["idle 1"]}
    assert names(image, found.ready) == {"qemu", "qemu-101"}
    assert found.ready.gaps == ()


def test_a_processor_without_an_idle_task_is_not_there() -> None:
    image = host()
    image.member("rq", image.at["rq 0"], "idle", 0)
    found = run_queues(image.open())
    assert found.idle == {image.at["idle 1"]}
    assert found.ready.items == ()


def test_a_queue_that_is_broken_is_a_gap_by_its_processor() -> None:
    image = host()
    image.member("rq", image.at["rq 1"], "cfs_tasks.next", AWAY)
    found = run_queues(image.open())
    assert [gap.what for gap in found.ready.gaps] == ["fair tasks of processor 1"]
    assert names(image, found.ready) == {"qemu", "qemu-101"}


def test_without_queues_nothing_is_known() -> None:
    image = host()
    image.symbols.pop("runqueues")
    image.put_tables()
    with pytest.raises(MissingDescription):
        run_queues(image.open())
    image = host()
    image.pointers("other", 0)
    image.poke(image.symbols["__per_cpu_offset"][0] + 8, words(AWAY))
    with pytest.raises(EvidenceError):
        run_queues(image.open())
