import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.report.visible import flowing, storable, visible

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("kvm_x86_ops.handle_exit", "kvm_x86_ops.handle_exit"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\rb", r"a\rb"),
        ("a\nb", r"a\nb"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066x\u2069", r"\u2066x\u2069"),
        ("kvm\u200b_amd", r"kvm\u200b_amd"),
        ("\u3164", r"\u3164"),
        ("a\u00a0b", r"a\xa0b"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("Jürgen Ж 字", "Jürgen Ж 字"),
        ("e\u0301\u0302", "e\u0301\u0302"),
        ("e\u0301\u0302\u0303\u0304", "e\u0301\u0302" + r"\u0303\u0304"),
        ("back\\slash", "back\\slash"),
    ],
)
def test_what_deceives_is_spelled_out_and_what_does_not_is_kept(raw: str, shown: str) -> None:
    assert visible(raw) == shown


@given(ANY_TEXT)
def test_nothing_visible_can_steer_a_terminal_or_hide(text: str) -> None:
    shown = visible(text)
    assert all(unicodedata.category(c)[0] != "C" for c in shown)
    assert all(unicodedata.category(c)[0] != "Z" or c == " " for c in shown)
    shown.encode()


@given(ANY_TEXT)
def test_making_visible_twice_changes_nothing(text: str) -> None:
    assert visible(visible(text)) == visible(text)


@given(st.text(st.sampled_from("ab \x1b\u202e"), min_size=1), st.text(st.sampled_from("ab \x1b\u202e"), min_size=1))
def test_different_texts_without_backslashes_look_different(one: str, other: str) -> None:
    assert (visible(one) == visible(other)) == (one == other)


def test_prose_flows_on_one_line_and_hides_nothing() -> None:
    assert flowing("  Treat the host\n   as compromised.\x1b ") == r"Treat the host as compromised.\x1b"


def test_only_what_utf8_cannot_carry_is_spelled_out_for_machines() -> None:
    tree = {"\udc80": ["\udcffa", ("é\x1b",), 1, None, True]}
    assert storable(tree) == {r"\udc80": [r"\udcffa", ["é\x1b"], 1, None, True]}
