from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervigil.checks import load_checks
from hypervigil.core.check import Check, Example, Metadata, needs_of
from hypervigil.core.facts import Fact
from hypervigil.core.finding import Severity, Verdict, Violation
from hypervigil.report.checkpages import index, marked, name_of, page, plain


class DispatchTable(Fact, frozen=True, kw_only=True):
    """The slots of
    ``kvm_x86_ops``.

    Attributes:
        slots: their addresses.
    """

    slots: tuple[int, ...] = ()


def slots_lead_home(table: DispatchTable) -> Iterator[Violation]:
    del table
    yield from ()


CHECK = Check(
    id="KVM-042",
    function=slots_lead_home,
    needs=needs_of(slots_lead_home),
    about=Metadata(
        title="The slots of `kvm_x86_ops` lead home",
        severity=Severity.CRITICAL,
        rationale="First *reason*.\n\nSecond reason, over\ntwo lines.",
        remedy="Rebuild the host.",
        false_positives="Live patches.",
        cannot_see="",
        standards=("ATT&CK T1014",),
        sources=("Linux arch/x86/kvm/x86.c",),
        aliases=("KVM-007",),
        example=(
            Example(
                name="a slot leads away",
                verdict=Verdict.VIOLATED,
                says="leads away",
                facts={"DispatchTable": {"slots": [{"address": 0xFFFF_FFFF_C000_0000, "length": 8, "tail": True}]}},
            ),
            Example(name="nothing was seen", verdict=Verdict.UNKNOWN),
        ),
    ),
)


def test_a_page_says_all_that_the_data_file_says() -> None:
    text = page(CHECK)
    for told in (
        "# KVM-042: The slots of `kvm_x86_ops` lead home\n",
        "- Severity: critical, confidence: high\n",
        "- Required by the profiles: default\n",
        "- Reads: `DispatchTable` (The slots of `kvm_x86_ops`)\n",
        "- Earlier ids: KVM-007\n",
        "## Why it matters\n\nFirst \\*reason\\*.\n\nSecond reason, over two lines.\n",
        "## What to do when it is violated\n\nRebuild the host.\n",
        "## Violated without malice by\n\nLive patches.\n",
        "## What it cannot see\n\nNothing is known.\n",
        "## Standards\n\n- ATT\\&CK T1014\n",
        "## Sources\n\n- Linux arch/x86/kvm/x86.c\n",
        '### a slot leads away\n\nVerdict: **violated**, and it says "leads away".\n',
        "### nothing was seen\n\nVerdict: **unknown**.\n\n```text\nnothing\n```\n",
    ):
        assert told in text


def test_an_example_shows_its_facts_with_addresses_in_hexadecimal() -> None:
    facts = "DispatchTable:\n  slots:\n    - address: 0xffffffffc0000000\n      length: 8\n      tail: yes\n"
    assert f"```text\n{facts}```" in page(CHECK)


def test_on_a_terminal_a_page_is_plain_text_of_the_asked_width() -> None:
    text = plain(CHECK, 40)
    assert text.startswith("KVM-042: The slots of `kvm_x86_ops` lead home\nseverity critical, confidence high\n")
    assert "\nWhy it matters\n  First *reason*.\n  Second reason, over two lines.\n" in text
    assert "\nStandards\n  ATT&CK T1014\n" in text
    assert "What it cannot see" not in text
    assert max(map(len, text.splitlines()[1:])) <= 40


def test_what_a_check_lacks_is_left_out() -> None:
    bare = msgspec.structs.replace(CHECK, about=msgspec.structs.replace(CHECK.about, standards=(), aliases=()))
    assert "Standards" not in page(bare)
    assert "Earlier ids" not in page(bare)


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("kvm_x86_ops.*", r"kvm\_x86\_ops.\*"),
        ("see `kvm_x86_ops` and x_y", r"see `kvm_x86_ops` and x\_y"),
        ("a lone ` tick", r"a lone \` tick"),
        ("<script> [a](b) | # ${x}", r"\<script\> \[a\](b) \| \# \$\{x\}"),
        ("over\n two   lines", "over two lines"),
    ],
)
def test_only_code_is_markup(text: str, markdown: str) -> None:
    assert marked(text) == markdown


@given(st.text(st.characters(exclude_characters="`\\")))
def test_escaping_can_be_undone_by_removing_backslashes(text: str) -> None:
    assert marked(text).replace("\\", "") == " ".join(text.split())


def test_the_index_links_every_check_in_order() -> None:
    other = msgspec.structs.replace(CHECK, id="KVM-001")
    text = index((CHECK, other))
    assert "Hypervigil judges 2 statements." in text
    assert text.index("[KVM-001](kvm-001.md)") < text.index("[KVM-042](kvm-042.md)")
    assert "| critical | The slots of `kvm_x86_ops` lead home |" in text


def test_an_index_of_nothing_says_so() -> None:
    assert "Hypervigil has no checks." in index(())


@pytest.mark.parametrize("check", load_checks(), ids=lambda check: check.id)
def test_every_check_has_a_page_with_all_its_examples(check: Check) -> None:
    text = page(check)
    assert text.startswith(f"# {check.id}: ")
    assert text.count("\n### ") == len(check.about.example)
    assert text.count("```") == 2 * len(check.about.example)
    assert name_of(check) == check.id.lower()
