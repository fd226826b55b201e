import gzip
import io
import stat

from hypothesis import given
from hypothesis import strategies as st

from hypervigil.lab.initramfs import Entry, directory, plain, program, write_initramfs


def unpacked(data: bytes) -> list[Entry]:
    file = io.BytesIO(gzip.decompress(data))
    entries: list[Entry] = []
    while True:
        head = file.read(110)
        assert head[:6] == b"070701"
        mode, size, length = (int(head[at : at + 8], 16) for at in (14, 54, 94))
        path = file.read(length)[:-1].decode()
        file.seek(-file.tell() % 4, io.SEEK_CUR)
        if path == "TRAILER!!!":
            return entries
        entries.append(Entry(path, mode, file.read(size)))
        file.seek(-file.tell() % 4, io.SEEK_CUR)


@given(st.lists(st.tuples(st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.binary(max_size=40))))
def test_what_is_packed_is_unpacked(files: list[tuple[str, bytes]]) -> None:
    entries = [directory("d"), *(plain(path, data) for path, data in files)]
    assert unpacked(write_initramfs(entries)) == entries
    assert write_initramfs(entries) == write_initramfs(entries)


def test_programs_can_be_run() -> None:
    (entry,) = unpacked(write_initramfs([program("init", b"#!")]))
    assert stat.S_ISREG(entry.mode)
    assert entry.mode & 0o111 == 0o111
