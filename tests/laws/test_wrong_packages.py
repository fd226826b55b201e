"""What is given besides the right packages costs nothing and accuses nobody; what memory says of them hides nothing."""

import pytest

from tests.decode.test_tar import archive
from tests.extract.shipment import (
    GIVEN,
    KERNEL,
    KERNEL_IMAGE,
    RELEASE,
    SAMPLE,
    compared,
    deb,
    deviations,
    host,
    package,
)
from tests.linux.kernel_builder import BUILD_ID, RODATA, RODATA_SIZE
from tests.linux.vendor.shipped import ShippedKernel, ShippedModule


@pytest.mark.parametrize("given", [GIVEN, (("linux.deb", package()),)])
def test_forged_bounds_of_what_is_so_after_init_hide_no_constant(given: tuple[tuple[str, bytes], ...]) -> None:
    image = host()
    image.poke(KERNEL.CONSTANTS + 1, b"\xfe")
    image.symbols |= {"__start_ro_after_init": (RODATA, "R"), "__end_ro_after_init": (RODATA + RODATA_SIZE, "R")}
    image.put_tables()
    _, data = compared(image, *given)
    assert [one.address for one in deviations(data.images)] == [KERNEL.CONSTANTS + 1]


@pytest.mark.parametrize("first", [True, False])
def test_a_wrong_package_beside_the_right_ones_is_only_named(*, first: bool) -> None:
    wrong = ("old.deb", package(ShippedKernel(b"\xab" * 20), ShippedModule("sample", b"\x99" * 20)))
    cut = ("cut.deb", deb({}, data=archive({f"./boot/vmlinuz-{RELEASE}": KERNEL_IMAGE})[:1024]))
    given = (wrong, cut, *GIVEN) if first else (*GIVEN, wrong, cut)
    text, data = compared(host(), *given)
    assert (text.gaps, data.gaps) == ((), ())
    assert text.unused == data.unused
    assert [one.partition(":")[0] for one in text.unused] == ["linux-image-test 6.12-1"] * 2
    assert f"has kernel of build {'ab' * 20}, in memory is build {BUILD_ID.hex()}" in text.unused[0]
    assert "cut off" in text.unused[1]
    assert deviations(text.images + data.images) == []


def test_a_wrong_package_where_something_is_not_covered_is_a_gap() -> None:
    wrong = ("old.deb", package(ShippedKernel(b"\xab" * 20)))
    text, data = compared(host(), *GIVEN[:2], ("old.deb", package(ShippedKernel(b"\xab" * 20), ShippedModule("x"))))
    for gaps in (text.gaps, data.gaps):
        assert [gap.what for gap in gaps] == ["linux-image-test 6.12-1", "user"]
    assert text.unused == ()
    text, data = compared(host(), GIVEN[0], wrong)
    assert (text.gaps, data.gaps) == ((), ())  # its modules are those that run
    assert len(text.unused) == 1


def test_modules_that_two_revisions_share_do_not_make_the_others_changes() -> None:
    old = ("old.deb", package(ShippedKernel(b"\xab" * 20), SAMPLE, ShippedModule("user", b"\x99" * 20)))
    text, data = compared(host(), *GIVEN, old)
    assert deviations(text.images + data.images) == []
    assert (text.gaps, data.gaps) == ((), ())
    text, data = compared(host(), GIVEN[0], old)
    assert deviations(text.images + data.images) == []
    assert [gap.what for gap in text.gaps] == ["linux-image-test 6.12-1", "user"]
