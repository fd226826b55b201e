"""Output that must not change unnoticed: stored beside the tests and compared to the character.

``HYPERVIGIL_GOLDEN=write`` stores what the code writes now; the change is then read in the diff.
"""

import os
from pathlib import Path

_FOLDER = Path(__file__).parent / "golden"


def assert_golden(name: str, text: str) -> None:
    path = _FOLDER / name
    if os.environ.get("HYPERVIGIL_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8", newline="")
    assert text == path.read_text(encoding="utf-8"), f"{name} differs; see {__name__} for how to accept it"
