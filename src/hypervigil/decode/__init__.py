"""Bytes to values: pure, bounded, total. Any input gives a value or a `DecodeError`; nothing here does I/O."""
