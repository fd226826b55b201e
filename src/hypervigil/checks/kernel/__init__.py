"""Checks over the kernel: its descriptions, executable memory, tables, text, modules and processes."""
