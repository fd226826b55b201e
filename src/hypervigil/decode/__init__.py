"""Bytes to values: pure, bounded, total. Any input gives a value or a `DecodeError`; no I/O."""
