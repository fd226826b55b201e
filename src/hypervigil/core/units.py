"""Distinct types for distinct kinds of number, so that the type checker keeps them apart."""

from typing import NewType

VirtAddr = NewType("VirtAddr", int)
"""A kernel or user virtual address, canonical, unsigned 64 bit."""

PhysAddr = NewType("PhysAddr", int)
"""A physical address of the machine under examination."""

FileOffset = NewType("FileOffset", int)
"""An offset in bytes from the start of an evidence file."""

PAGE_SIZE = 4096
"""The smallest page of x86-64, in bytes."""
