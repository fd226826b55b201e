"""Facts to violations. A check sees facts only, never bytes or the world.

A check is a function tagged with `hypervigil.core.check.check`, alone in its module; beside it lies a data file of
the same stem with its metadata and examples. `load_checks` finds both by scanning; there is no list to keep.
"""

from hypervigil.checks.loading import load_checks

__all__ = ["load_checks"]
