import shutil
import subprocess

import pytest

from hypervigil.cli import completion
from tests.cli.conftest import Run


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_each_shell_gets_code_that_asks_the_program(run: Run, shell_name: str) -> None:
    ran = run("completion", shell_name)
    assert (ran.status, ran.err) == (0, "")
    assert f"_HYPERVIGIL_COMPLETE={shell_name}_complete" in ran.out
    assert "hypervigil" in ran.out
    assert ran.out.endswith("\n")


def test_bash_takes_the_code_as_it_is(run: Run) -> None:
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run([bash, "-n"], input=run("completion", "bash").out.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_word_is_completed(shell: Run) -> None:
    ran = shell("_HYPERVIGIL_COMPLETE=bash_complete COMP_WORDS='hypervigil int' COMP_CWORD=1 hypervigil")
    assert ran == (0, "plain,integrity\n", "")


def test_a_shell_that_is_not_known_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in run("completion", "csh").err
    monkeypatch.setattr(completion, "get_completion_class", lambda _: None)
    assert run("completion", "fish") == (2, "", "hypervigil: click has no completion for fish\n")
