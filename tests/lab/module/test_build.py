from pathlib import Path

import msgspec
import pytest

from hypervigil.app.judging import Settings, judge_memory
from hypervigil.core.errors import UsageError
from hypervigil.core.finding import Verdict
from hypervigil.lab.images import Format, save
from hypervigil.lab.kernels import Kernel, fetch, known
from hypervigil.lab.machine import boot
from hypervigil.lab.produce import plant
from hypervigil.lab.scenarios import Host, Scenario, parse_scenario
from hypervigil.lab.store import cache_directory
from hypervigil.memory.open import open_image
from tests.extract.judged import evidence
from tests.lab.module.build import build

LIVEPATCH = Path(__file__).with_name("livepatch.toml")


def livepatch(module: Path) -> Scenario:
    scenario = parse_scenario("livepatch", LIVEPATCH.read_bytes())
    return msgspec.structs.replace(scenario, host=msgspec.structs.replace(scenario.host, files=(str(module),)))


def test_without_root_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="only root"):
        build(Kernel("6.1.0-0-test", {}, tmp_path, tmp_path), "bookworm", tmp_path, print)


@pytest.mark.lab
def test_a_live_patch_changes_nothing_and_loads_only_in_the_range() -> None:
    cache = cache_directory(None)
    kernel = fetch("6.1", cache, print)
    scenario = livepatch(build(kernel, known()["6.1"], cache, print))
    with boot(kernel, scenario.host, cache, print) as machine:
        before = machine.text("cat /proc/cmdline")
        assert plant(machine, scenario) is None
        assert machine.text("cat /proc/cmdline") == before
        assert machine.text("cat /sys/kernel/livepatch/lab_livepatch/enabled") == "1\n"
    with boot(kernel, Host(files=scenario.host.files), cache, print) as machine:
        result = machine.sh("insmod /mod/lab_livepatch.ko")
        assert result.status != 0
        assert "not permitted" in result.text


@pytest.mark.lab
def test_a_live_patch_is_named_and_accuses_nobody(tmp_path: Path) -> None:
    cache = cache_directory(None)
    kernel = fetch("6.1", cache, print)
    scenario = livepatch(build(kernel, known()["6.1"], cache, print))
    with boot(kernel, scenario.host, cache, print) as machine:
        plant(machine, scenario)
        with machine.frozen():
            save(machine.qmp, machine.place.ram, tmp_path / "image", Format.RAW)
    settings = Settings("integrity", "image", "default", "2026-01-01T00:00:00Z")
    report = judge_memory(open_image(str(tmp_path / "image")), evidence, settings).report
    assert [f.check for f in report.findings if f.verdict is Verdict.VIOLATED] == []
    seen = [one.message for finding in report.findings for one in finding.observations]
    assert "cmdline_proc_show is altered by livepatch lab_livepatch (ftrace)" in seen
