"""Judging imports nothing: once it is confined no file can be opened, so an import there ends it."""

import subprocess
import sys

_SCRIPT = """
import sys
from hypervigil.app.integrity import load_everything
from tests.extract.judged import judged
from tests.extract.tamperings import TAMPERINGS
from tests.linux import test_freeing as freeing
from tests.linux.host_builder import host

images = [host() for _ in range(len(TAMPERINGS) + 1)]
for image, (alter, _) in zip(images, TAMPERINGS.values()):
    alter(image)
host_with_a_dying_module = freeing.made()
thread = freeing.waiting(host_with_a_dying_module, "free_module", host_with_a_dying_module.at["module dummy"])
load_everything()
there = set(sys.modules)
for image in images:
    judged(image)
assert freeing.freed(host_with_a_dying_module, thread)
print(sorted(set(sys.modules) - there))
"""


def test_judging_imports_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
