"""Digests of evidence.

An image is large and read by several threads, so it is cut into chunks of 4 MiB. Its digest is the SHA-256 of the
chunks' SHA-256 digests one after another, written ``sha256-4m:HEX``. To check one chunk, hash its bytes.
"""

import hashlib
from collections.abc import Iterable

CHUNK = 1 << 22
"""Bytes of a chunk; the last one may be shorter."""

PREFIX = "sha256-4m:"
"""What a chunked digest begins with."""


def combine(chunks: Iterable[bytes]) -> str:
    """The digest of an evidence from its chunks' digests, in order."""
    whole = hashlib.sha256()
    for chunk in chunks:
        whole.update(chunk)
    return PREFIX + whole.hexdigest()


def digest_of(data: bytes | memoryview) -> str:
    """The chunked digest of bytes in memory."""
    return combine(hashlib.sha256(data[at : at + CHUNK]).digest() for at in range(0, len(data), CHUNK))
