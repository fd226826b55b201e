"""A check's documentation page, from the data file that stands beside the check.

Markdown as CommonMark has it. The words of a data file are plain text in which only ``code`` between backticks is
markup; everything else that Markdown would act on is escaped, since kernel names are full of underscores and stars.
"""

import re
from collections.abc import Iterable
from inspect import cleandoc
from textwrap import wrap

from hypervigil.core.check import Check, Example
from hypervigil.core.facts import Fact
from hypervigil.report.visible import flowing

_ACTIVE = re.compile(r"([\\`*_<>\[\]{}|#~&$^!])")
_CODE = re.compile(r"(`[^`\n]+`)")
_SHORT_NUMBER = 4096
"""From a page size on, a number in an example is an address or an offset and is shown in hexadecimal."""


def name_of(check: Check) -> str:
    """The file name of a check's page without its suffix: its id in lower case."""
    return check.id.lower()


def page(check: Check) -> str:
    """The page of one check, from its title to its examples."""
    about = check.about
    parts = [
        f"# {check.id}: {marked(about.title)}",
        "\n".join(
            [
                f"- Severity: {about.severity}, confidence: {about.confidence}",
                f"- Required by the profiles: {', '.join(about.profiles) or 'none'}",
                f"- Reads: {', '.join(f'`{need.__name__}` ({marked(_gist(need))})' for need in check.needs)}",
                *([f"- Earlier ids: {', '.join(about.aliases)}"] if about.aliases else []),
            ]
        ),
        f"## Why it matters\n\n{_paragraphs(about.rationale)}",
        f"## What to do when it is violated\n\n{_paragraphs(about.remedy)}",
        f"## Violated without malice by\n\n{_paragraphs(about.false_positives)}",
        f"## What it cannot see\n\n{_paragraphs(about.cannot_see)}",
        _listed("Standards", about.standards),
        _listed("Sources", about.sources),
        "## Examples\n\nEach is also a test: the engine must give this verdict over these facts.",
        *(_example(example) for example in about.example),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(check: Check, width: int = 80) -> str:
    """What a page says of a check, without its examples, as text for a terminal of `width` columns."""
    about = check.about
    sections = {
        "Why it matters": _blocks(about.rationale),
        "What to do when it is violated": _blocks(about.remedy),
        "Violated without malice by": _blocks(about.false_positives),
        "What it cannot see": _blocks(about.cannot_see),
        "Reads": [f"{need.__name__}: {_gist(need)}" for need in check.needs],
        "Standards": list(about.standards),
        "Sources": list(about.sources),
    }
    lines = [f"{check.id}: {flowing(about.title)}", f"severity {about.severity}, confidence {about.confidence}"]
    for title, blocks in sections.items():
        if blocks:
            lines += ["", title]
        for block in blocks:
            lines += wrap(flowing(block), width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines) + "\n"


def index(checks: Iterable[Check]) -> str:
    """A page that lists every check by id, with the severity and the statement that should be true.

    A MyST ``toctree`` directive puts the pages into the navigation of the built documentation.
    """
    ordered = sorted(checks, key=lambda c: c.id)
    rows = [
        f"| [{check.id}]({name_of(check)}.md) | {check.about.severity} | {marked(check.about.title)} |"
        for check in ordered
    ]
    head = ["# Checks", "", f"Hypervigil {'has no checks' if not rows else f'judges {len(rows)} statements'}.", ""]
    table = ["| Check | Severity | The statement that should be true |", "|---|---|---|", *rows, ""]
    pages = ["```{toctree}", ":hidden:", "", *(name_of(check) for check in ordered), "```", ""]
    return "\n".join([*head, *([*table, *pages] if rows else [])])


def marked(text: str) -> str:
    """Plain text as Markdown that shows exactly this text, with ``code`` between backticks kept as code."""
    flowing = " ".join(text.split())
    return "".join(part if at % 2 else _ACTIVE.sub(r"\\\1", part) for at, part in enumerate(_CODE.split(flowing)))


def _gist(need: type[Fact]) -> str:
    """The first paragraph of a fact's docstring, in which two backticks mean what one means here."""
    return cleandoc(need.__doc__ or "").partition("\n\n")[0].rstrip(".").replace("``", "`")


def _paragraphs(text: str) -> str:
    return "\n\n".join(map(marked, _blocks(text))) or "Nothing is known."


def _blocks(text: str) -> list[str]:
    return [part for part in re.split(r"\n[ \t]*\n", text) if part.strip()]


def _listed(title: str, items: tuple[str, ...]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {marked(item)}" for item in items) if items else ""


def _example(example: Example) -> str:
    said = f', and it says "{marked(example.says)}"' if example.says else ""
    facts = "\n".join(_told(example.facts, 0)) or "nothing"
    return f"### {marked(example.name)}\n\nVerdict: **{example.verdict}**{said}.\n\n```text\n{facts}\n```"


def _told(value: object, depth: int) -> list[str]:
    """Nested data as indented lines; examples are written by hand, so their depth is small."""
    pad = "  " * depth
    if isinstance(value, dict):
        return [line for key, item in value.items() for line in _entry(f"{pad}{key}:", item, depth)]
    if isinstance(value, list | tuple):
        return [line for item in value for line in _entry(f"{pad}-", item, depth)]
    return [f"{pad}{_scalar(value)}"]


def _entry(head: str, item: object, depth: int) -> list[str]:
    if not isinstance(item, dict | list | tuple):
        return [f"{head} {_scalar(item)}"]
    if isinstance(item, list | tuple) and not any(isinstance(part, dict | list | tuple) for part in item):
        return [f"{head} [{', '.join(_scalar(part) for part in item)}]"]
    lines = _told(item, depth + 1)
    if head.endswith("-") and lines:
        return [f"{head} {lines[0].lstrip()}", *lines[1:]]
    return [head, *lines]


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and value >= _SHORT_NUMBER:
        return f"{value:#x}"
    return str(value).replace("```", "'''")
