"""The manual page, from the commands as click knows them.

``python -m tools.manual FILE`` writes it. The text is put together as reStructuredText, and docutils makes it a page
for man(1).
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from docutils.core import publish_string

from hypervigil import __version__
from hypervigil.cli.main import root
from tools.commandline import each_context, paragraphs

_PURPOSE = "evidence of what a virtualization host is"
_MARKS = re.compile(r"([\\*`|_<>\[\]{}:])")


def page(command: click.Command, name: str) -> str:
    """The manual of `command` and of all commands below it, for section 1.

    Raises:
        docutils.utils.SystemMessage: a text could not be brought into the form of a page.
    """
    source = "\n".join(_lines(command, name))
    settings = {"halt_level": 2, "report_level": 2, "warning_stream": False, "output_encoding": "unicode"}
    return str(publish_string(source, writer="manpage", settings_overrides=settings))


def _lines(command: click.Command, name: str) -> Iterator[str]:
    for text, rule in ((name, "="), (_PURPOSE, "-")):
        yield from (rule * len(text), text, rule * len(text), "")
    yield from (":Manual section: 1", f":Version: {__version__}", "")
    contexts = list(each_context(command, name))
    yield from _heading("SYNOPSIS", "=")
    for context in contexts:
        if not isinstance(context.command, click.Group):
            yield f"| **{_escaped(context.command_path)}** {_escaped(_pieces(context))}"
    yield from ("", *_heading("DESCRIPTION", "="))
    for index, context in enumerate(contexts):
        if index:
            yield from _heading(context.command_path.upper(), "=")
        yield from _described(context)


def _described(context: click.Context) -> Iterator[str]:
    """A command's help and its options and arguments."""
    for text, kept in paragraphs(context.command.help or ""):
        yield from ("::", "", *(f"    {line}" for line in text.splitlines()), "") if kept else (_escaped(text), "")
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in parameter.opts:
            yield from (f"**{_escaped(record[0])}**", f"    {_escaped(record[1])}", "")


def _heading(text: str, rule: str) -> tuple[str, ...]:
    return (text, rule * len(text), "")


def _pieces(context: click.Context) -> str:
    return " ".join(context.command.collect_usage_pieces(context))


def _escaped(text: str) -> str:
    """Plain text in one line, with every character that reStructuredText might take for a mark escaped."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def main(arguments: list[str]) -> int:
    """Write the page of the program to the file that is named."""
    (place,) = arguments
    Path(place).write_text(page(root, "hypervigil"), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
