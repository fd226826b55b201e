import pytest

from hypervigil.core.facts import Absent, Gap
from hypervigil.extract.views import kvm_machines, modules, tasks
from hypervigil.facts.views import CrossView, Member
from tests.extract.judged import finding, judged, subject
from tests.extract.tamperings import hidden_machine, hidden_module, module_out_of_sysfs
from tests.linux.host_builder import host, kvm_types
from tests.linux.kernel_builder import HEAP, KernelImage

COMPLETE = {"module list", "address tree", "sysfs", "bug list"}


def member(views: CrossView, key: int) -> Member:
    (found,) = [m for m in views.members if m.key == key]
    return found


def excuses(found: Member) -> dict[str, str]:
    return {view: why for view, _, why in (text.partition(": ") for text in found.excused)}


def test_every_view_shows_every_module() -> None:
    image = host()
    found = modules(subject(image))
    assert set(found.views) == COMPLETE | {"type information"}
    assert [m.name for m in found.members] == ["kvm", "kvm_amd", "dummy"]
    assert all(set(m.views) >= COMPLETE for m in found.members)
    assert found.gaps == ()
    (span, *_) = member(found, image.at["module kvm"]).span
    assert (span.start, span.end - span.start) == (
        image.physical(image.at["module kvm"]),
        image.types.size("module"),
    )


def test_a_module_is_missed_where_it_was_taken_off_and_nowhere_else() -> None:
    image = host()
    found = member(modules(subject(image)), hidden_module(image))
    assert set(found.views) == COMPLETE
    found = member(modules(subject(image)), image.at["module dummy"])
    assert set(found.views) == COMPLETE - {"module list"}
    assert set(excuses(found)) == {"type information"}


@pytest.mark.parametrize(("state", "said"), [(1, "it is coming"), (2, "it is going"), (3, "it is unformed")])
def test_a_module_that_comes_or_goes_is_excused_everywhere(state: int, said: str) -> None:
    image = host()
    address = hidden_module(image)
    image.member("module", address, "state", state)
    found = member(modules(subject(image)), address)
    assert set(excuses(found)) == COMPLETE | {"type information"}
    assert set(excuses(found).values()) == {said}


def test_a_view_that_could_not_be_walked_to_its_end_excuses_and_is_a_gap() -> None:
    image = host()
    address = image.at["module dummy"] + image.types.offset("module", "list")
    image.poke(image.word(address + 8), bytes(8))  # the list ends before it
    found = modules(subject(image))
    assert excuses(member(found, image.at["module dummy"]))["module list"] == "it could not be walked to its end"
    assert "module list" in {gap.what for gap in found.gaps}
    assert finding(judged(image), "KRN-012").verdict == "incomplete"


def test_a_view_that_could_not_be_walked_at_all_is_left_out_and_a_gap() -> None:
    image = host()
    image.symbols.pop("module_kset")
    image.put_tables()
    found = modules(subject(image))
    assert "sysfs" not in found.views
    assert Gap("sysfs", "symbol module_kset was not found in kallsyms in the image") in found.gaps


@pytest.mark.parametrize(("path", "value"), [("state", 9), ("name", b"\x07\xff"), ("name", b"")])
def test_a_hidden_module_that_was_made_unreadable_is_never_cleared(path: str, value: int | bytes) -> None:
    image = host()
    address = hidden_module(image)
    module_out_of_sysfs(image)
    image.member("module", address, path, value)
    found = modules(subject(image))
    assert address not in {m.key for m in found.members}
    assert found.gaps == (Gap(f"module at {address:#x}", f"what stands at {address:#x} is no module"),)
    assert finding(judged(image), "KRN-012").verdict == "incomplete"


def test_a_module_that_takes_another_s_name_is_never_cleared() -> None:
    image = host()
    address = hidden_module(image)
    image.member("module", address, "name", b"kvm")
    assert modules(subject(image)).gaps == (Gap(f"module at {address:#x}", "it has the name of another module"),)
    report = judged(image)
    assert finding(report, "KRN-012").verdict == "incomplete"
    assert finding(report, "KRN-005").verdict == "violated"


def test_a_module_whose_memory_is_lost_is_a_gap_and_no_member() -> None:
    image = host()
    frame = image.physical(image.at["module dummy"])
    found = modules(subject(image, image.lime(frame)))
    assert "dummy" not in {m.name for m in found.members}
    assert any(hex(image.at["module dummy"]) in gap.what for gap in found.gaps)


def test_every_thread_is_shown_and_idle_ones_are_left_out() -> None:
    image = host()
    found = tasks(subject(image))
    assert found.views == ("task list", "process ids", "children", "run queues")
    names = {m.name: set(m.views) for m in found.members}
    assert set(names) == {"1 (systemd)", "2 (kthreadd)", "100 (qemu)", "101 (qemu-101)"}
    assert names["100 (qemu)"] == {"task list", "process ids", "children", "run queues"}
    assert names["101 (qemu-101)"] == {"task list", "process ids", "run queues"}
    assert found.gaps == ()


def test_views_that_need_not_show_everything_excuse() -> None:
    image = host()
    found = member(tasks(subject(image)), image.at["task systemd"])
    assert set(excuses(found)) == {"children", "run queues"}
    assert set(excuses(found).values()) == {"it need not show everything"}


def test_a_thread_that_exits_is_excused() -> None:
    image = host()
    address = image.at["task kthreadd"]
    image.unlink(address + image.types.offset("task_struct", "tasks"))
    assert finding(judged(image), "KRN-013").verdict == "violated"
    image.member("task_struct", address, "exit_state", 16)
    found = member(tasks(subject(image)), address)
    assert set(excuses(found)) == {"task list", "process ids", "children", "run queues"}
    assert finding(judged(image), "KRN-013").verdict == "holds"


def test_an_idle_task_with_an_id_is_no_idle_task() -> None:
    image = host()
    offset = image.types.offset
    idle = image.at["idle 1"]
    image.link(image.at["task kthreadd"] + offset("task_struct", "children"), idle + offset("task_struct", "sibling"))
    image.link(idle + offset("task_struct", "children"))
    assert idle not in {m.key for m in tasks(subject(image)).members}
    image.member("task_struct", idle, "pid", 666)
    assert member(tasks(subject(image)), idle).views == ("children",)
    assert finding(judged(image), "KRN-013").verdict == "violated"


def test_without_run_queues_nobody_counts_as_idle() -> None:
    image = host()
    image.symbols.pop("runqueues")
    image.put_tables()
    found = tasks(subject(image))
    assert "run queues" not in found.views
    assert {m.name for m in found.members} >= {"1 (systemd)", "101 (qemu-101)"}


def test_a_task_whose_memory_is_lost_is_a_gap_and_no_member() -> None:
    image = host()
    image.poke(image.at["pid 2"] + image.types.offset("pid", "tasks"), (HEAP + (1 << 40)).to_bytes(8, "little"))
    found = tasks(subject(image))
    assert any("what process ids show at" in gap.what for gap in found.gaps)
    assert "process ids" not in member(found, image.at["task kthreadd"]).views


def test_every_view_of_machines_agrees() -> None:
    image = host()
    found = kvm_machines(subject(image))
    assert not isinstance(found, Absent)
    assert found.views == ("vm_list", "open files", "memory notifiers", "running processors")
    (machine,) = found.members
    assert (machine.key, set(machine.views)) == (image.at["machine"], set(found.views))
    assert machine.name == f"{image.at['machine']:#x} of process 100"
    assert found.gaps == ()


def without_symbol(image: KernelImage, symbol: str) -> KernelImage:
    strings = image.at["strtab of kvm"]
    raw = image.peek(strings, 4096 - (strings & 0xFFF))
    image.poke(strings + raw.index(b"\0" + symbol.encode() + b"\0") + 1, b"x")
    return image


@pytest.mark.parametrize(
    ("symbol", "view", "gaps"), [("kvm_running_vcpu", "running processors", []), ("vm_list", "vm_list", ["vm_list"])]
)
def test_only_a_view_that_must_show_everything_is_missed(symbol: str, view: str, gaps: list[str]) -> None:
    found = kvm_machines(subject(without_symbol(host(), symbol)))
    assert not isinstance(found, Absent)
    assert view not in found.views
    assert [gap.what for gap in found.gaps] == gaps


def test_a_hidden_machine_is_missed_in_its_list() -> None:
    image = host()
    hidden_machine(image)
    found = kvm_machines(subject(image))
    assert not isinstance(found, Absent)
    assert set(found.members[0].views) == {"open files", "memory notifiers", "running processors"}
    assert set(excuses(found.members[0])) == {"running processors"}


def test_a_machine_that_a_processor_runs_and_nobody_else_knows_is_shown() -> None:
    image = host()
    types = kvm_types()
    rogue = image.object("kvm", types, userspace_pid=1)
    processor = image.object("kvm_vcpu", types, kvm=rogue)
    image.poke(image.at["loaded 0"], processor.to_bytes(8, "little"))
    found = kvm_machines(subject(image))
    assert not isinstance(found, Absent)
    assert member(found, rogue).views == ("running processors",)
    assert finding(judged(image), "KVM-015").verdict == "violated"


def test_a_place_that_is_not_in_the_image_is_a_gap_by_who_shows_it() -> None:
    image = host()
    away = HEAP + (1 << 41)
    image.member("file", image.at["file 4"], "private_data", away)
    found = kvm_machines(subject(image))
    assert not isinstance(found, Absent)
    assert away not in {m.key for m in found.members}
    assert f"what open files show at {away:#x}" in {gap.what for gap in found.gaps}


def test_without_kvm_there_are_no_machines() -> None:
    image = host()
    for name in ("kvm", "kvm_amd"):
        image.member("module", image.at[f"module {name}"], "name", name.replace("kvm", "vbox").encode())
    assert kvm_machines(subject(image)) == Absent("KVM is not loaded")
