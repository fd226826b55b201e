"""What is given besides the right packages costs nothing where they cover everything, and accuses nobody."""

import pytest

from tests.decode.test_tar import archive
from tests.extract.shipment import GIVEN, KERNEL_IMAGE, RELEASE, SAMPLE, compared, deb, deviations, host, package
from tests.linux.kernel_builder import BUILD_ID
from tests.linux.vendor.shipped import ShippedKernel, ShippedModule


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
