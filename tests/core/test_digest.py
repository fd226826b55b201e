import hashlib

from hypervigil.core.digest import CHUNK, PREFIX, combine, digest_of


def test_a_digest_is_of_the_chunks_digests_in_order() -> None:
    data = b"a" * CHUNK + b"b" * CHUNK + b"tail"
    parts = [hashlib.sha256(part).digest() for part in (b"a" * CHUNK, b"b" * CHUNK, b"tail")]
    assert digest_of(data) == PREFIX + hashlib.sha256(b"".join(parts)).hexdigest()
    assert digest_of(memoryview(data)) == combine(parts)
    assert combine(reversed(parts)) != combine(parts)


def test_nothing_has_a_digest_too() -> None:
    assert digest_of(b"") == PREFIX + hashlib.sha256(b"").hexdigest()


def test_a_last_chunk_may_be_shorter_and_one_is_never_empty() -> None:
    whole = hashlib.sha256(hashlib.sha256(b"x" * CHUNK).digest()).hexdigest()
    assert digest_of(b"x" * CHUNK) == PREFIX + whole
