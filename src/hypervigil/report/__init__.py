"""Renderers. Each reads a `Report` and nothing else."""
