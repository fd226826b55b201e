"""System call numbers of x86-64, which are part of the ABI and never change."""

from functools import cache
from importlib.resources import files


@cache
def entry_points() -> dict[int, str]:
    """Entry point of each system call by number, without prefix: ``59: "execve"``.

    Source: arch/x86/entry/syscalls/syscall_64.tbl, as the tables of Linux 5.10 to 7.2 have it.
    """
    text = files("hypervigil.standards").joinpath("data/syscalls_x86_64.tsv").read_text("ascii")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return {int(number): entry for number, entry in rows}
