"""Hypervigil gives independent evidence that hypervisors are what their owners think they are."""

from importlib.metadata import version as _version

__version__ = _version("hypervigil")
