"""Bytes to values: pure, bounded and total. Each module knows one format and raises `DecodeError` only."""
