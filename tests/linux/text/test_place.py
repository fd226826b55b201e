"""What a mechanism is given."""

from tests.linux.text.world import MODULE, TEXT, World, place


def test_a_symbol_is_the_objects_own_before_the_kernels() -> None:
    world = World()
    world.symbol("shared", TEXT + 1)
    world.symbol("only_here", TEXT + 2)
    world.module("kvm", (MODULE + 3, 1, "shared"))
    made = place(world, owner="kvm")
    assert (made.symbol("shared"), made.symbol("only_here"), made.symbol("nowhere")) == (MODULE + 3, TEXT + 2, None)
