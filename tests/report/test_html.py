import base64
import re
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings

from hypervigil.core.finding import Verdict
from hypervigil.core.report import Exhibit, Report
from hypervigil.report.html import render
from hypervigil.report.visible import visible
from hypervigil.report.wording import hexadecimal
from tests.report import reports
from tests.report.golden import assert_golden
from tests.report.strategies import ANY_TEXT
from tests.report.strategies import reports as any_reports

STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
VOID = frozenset({"meta", "br"})
TAG_WORDS = (
    "html head meta title style body a header div svg path rect span p main section bdi h1 h2 h3 h4 h5 figure strong "
    "figcaption g ul li circle dl dt dd nav table thead tbody tr th td code article pre mark details summary text "
    "defs pattern footer small br"
)
TAGS = frozenset(TAG_WORDS.split())


class Page(HTMLParser):
    """The page as a browser sees it: tags with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.tags if attribute in attributes]


def squeezed(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("name", ["clean", "violated", "undecided", "hostile"])
def test_the_output_is_the_stored_one(name: str) -> None:
    text = STYLE.sub("<style></style>", render(getattr(reports, name)()))
    assert_golden(f"{name}.html", re.sub(r"sha256-[A-Za-z0-9+/=]{44}", "sha256-", text))


@pytest.mark.parametrize("name", ["clean", "violated", "undecided", "hostile", "huge"])
def test_nothing_can_run_load_or_leave(name: str) -> None:
    page = Page(render(getattr(reports, name)()))
    assert {tag for tag, _ in page.tags} <= TAGS
    assert not [value for _, attributes in page.tags for value in attributes if value.startswith("on")]
    assert all(link.startswith("#") for link in page.values("href"))
    assert page.values("src") == page.values("style") == page.values("xlink:href") == []


@pytest.mark.parametrize("name", ["violated", "hostile"])
def test_the_policy_admits_the_one_style_sheet_and_nothing_else(name: str) -> None:
    text = render(getattr(reports, name)())
    (style,) = STYLE.findall(text)
    digest = base64.b64encode(sha256(style.encode()).digest()).decode()
    (policy,) = [a["content"] for _, a in Page(text).tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in style.replace("url(#", "")
    assert "@import" not in style


@pytest.mark.parametrize("name", ["clean", "violated", "undecided", "hostile", "huge"])
def test_every_link_has_a_target_and_no_id_stands_twice(name: str) -> None:
    page = Page(render(getattr(reports, name)()))
    ids = page.values("id")
    assert sorted(ids) == sorted(set(ids) | ({"writable"} & set(ids)))
    assert {link.removeprefix("#") for link in page.values("href")} <= set(ids)


def test_hostile_names_stay_text_and_show_their_controls() -> None:
    text = render(reports.hostile())
    page = Page(text)
    assert r"\x1b[2J" in page.text
    assert r"\u202egnp.exe" in page.text
    assert "<script>alert(1)</script>" in page.text
    assert "{{7*7}}" in page.text
    assert all(character.isprintable() or character == "\n" for character in text)


def test_a_violation_shows_all_that_proves_it() -> None:
    seen = squeezed(Page(render(reports.violated())).text)
    for proof in (
        "Not so: KVM dispatch slots lead to KVM functions",
        "kvm_x86_ops.handle_exit 0xffffffffc0a1b2c0",
        "Found 0xffffffffc0c81000 (no owner)",
        "Should be svm_handle_exit (0xffffffffc09f2310)",
        "image bytes [0x1f3a12c0, 0x1f3a12c8)",
        "0xffffffffc09f2310 0f1f440000 nop dword ptr [rax + rax]",
        "0xffffffffc09f2310 e9ebec2800 jmp 0xffffffffc0c81000",
        "Stands in image at 0x1f3a12c0, 8 bytes",
        "What to do Treat the host",
        "Violated without malice by",
        "This check cannot see",
        "sha256:" + "a1" * 32,
        "no KERNELOFFSET: a stale copy",
        "What this report cannot see",
    ):
        assert squeezed(proof) in seen


def test_differing_bytes_and_lines_are_marked() -> None:
    text = render(reports.violated())
    assert "<mark>10</mark> <mark>23</mark> <mark>9f</mark> c0 ff" in text
    assert "<mark>00</mark> <mark>10</mark> <mark>c8</mark> c0 ff" in text
    assert text.count('<span class="line differs">') == 2


def test_only_a_report_with_violations_has_their_section() -> None:
    assert "violations" not in Page(render(reports.clean())).values("id")
    assert "violations" in Page(render(reports.violated())).values("id")


def test_what_is_not_decided_says_why_and_whether_it_was_required() -> None:
    seen = squeezed(Page(render(reports.undecided())).text)
    assert squeezed("incomplete KVM-009 required no guest maps a frame") in seen
    assert squeezed("the image holds no registers; an ELF dump does") in seen


def test_coverage_draws_a_tile_for_each_check() -> None:
    page = Page(render(reports.violated()))
    tiles = [a["class"] for tag, a in page.tags if tag == "g" and "transform" in a and "tile" in a["class"]]
    assert len(tiles) == len(reports.violated().findings)
    assert tiles.count("tile violated") == 2
    assert tiles.count("tile not-applicable") == 1


def test_many_violations_are_all_listed() -> None:
    seen = Page(render(reports.huge())).text
    assert all(f"site {number} calls" in seen for number in range(2_000))
    assert "1990 more violations of this check" in seen


def test_proof_is_shown_however_many_violations_stand_before_it() -> None:
    many = reports.huge().findings[-1]
    shown = Exhibit(check=many.check, violation=1500, title="the proof of 1500", address=0, spans=(), found="90")
    page = Page(render(reports.report((many,), exhibits=(shown,))))
    assert "the proof of 1500" in page.text
    assert "1989 more violations of this check" in page.text


def test_a_long_exhibit_says_how_much_it_leaves_out() -> None:
    found = reports.finding("A-1", "a", Verdict.VIOLATED, violations=(reports.slot_violation(),))
    shown = Exhibit(check="A-1", violation=0, title="t", address=0, spans=(), found="00" * 2048)
    assert "up to 1024 more bytes in the JSON report" in render(reports.report((found,), exhibits=(shown,)))


@settings(max_examples=20)
@given(any_reports(ANY_TEXT))
def test_any_report_renders_and_shows_every_violation(report: Report) -> None:
    text = render(report)
    assert text == render(report)
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= TAGS
    seen = squeezed(page.text)
    for violation in (v for finding in report.findings for v in finding.violations):
        assert squeezed(visible(violation.message)) in seen
        assert violation.address is None or hexadecimal(violation.address) in seen
