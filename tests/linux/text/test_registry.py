"""What the kernel has registered about its text."""

from hypervigil.linux.text.code import read_code
from hypervigil.linux.text.registry import read_registry
from tests.linux.text.world import DATA, TEXT, TEXT_END, World


def test_everything_is_read_and_every_gap_is_told() -> None:
    world = World()
    world.symbol("kprobe_table", DATA + 0x100000, "D")
    world.symbol("ftrace_pages_start", DATA + 0x100000, "D")
    world.symbol("__x86_return_thunk", TEXT + 0x40)
    system = world.system()
    found = read_registry(system, [read_code(system.kernel, "kernel", TEXT, TEXT_END)])
    assert found.thunks.returns == (TEXT + 0x40,)
    assert {gap.what for gap in found.gaps} >= {"kprobes", "records of ftrace", "vmap areas"}
