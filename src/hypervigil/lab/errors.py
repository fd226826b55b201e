"""The range's own error."""

from hypervigil.core.errors import UsageError


class NotApplicable(UsageError):
    """The scenario has no place on this kernel; the message says what the kernel lacks."""
