"""Checks over KVM: its dispatch, and what hangs on each of its machines."""
