"""Where a report goes: the terminal, a file, in one format or several."""

import os
import sys
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import click

from hypervigil.app.writing import write_whole
from hypervigil.core.errors import UsageError
from hypervigil.core.report import Report
from hypervigil.report import html, sarif, terminal
from hypervigil.report import json as json_report

F = TypeVar("F", bound=Callable[..., object])


class Output(NamedTuple):
    """What the user asked to be written."""

    json: bool
    sarif: bool
    html: str
    file: str
    quiet: bool


def output_options(command: F) -> F:
    """Add the options that every command with a report has."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="One line, and no progress."),
        click.option("-o", "--output", "file", type=click.Path(dir_okay=False), default="", help="Write to this file."),
        click.option("--html", "html_file", type=click.Path(dir_okay=False), default="", help="Write a page to mail."),
        click.option("--sarif", "as_sarif", is_flag=True, help="SARIF 2.1.0 instead of text."),
        click.option("--json", "as_json", is_flag=True, help="JSON instead of text."),
    ):
        command = option(command)
    return command


def output_of(*, as_json: bool, as_sarif: bool, html_file: str, file: str, quiet: bool) -> Output:
    """Check that the options go together.

    Raises:
        UsageError: they do not.
    """
    if as_json and as_sarif:
        raise UsageError("--json and --sarif: choose one")
    return Output(as_json, as_sarif, html_file, file, quiet)


def show(report: Report, output: Output) -> int:
    """Write the report, and return its exit status.

    Raises:
        UsageError: a file cannot be written.
    """
    if output.html:
        write_whole(output.html, html.render(report).encode())
    text = _rendered(report, output)
    if output.file:
        write_whole(output.file, text.encode())
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode(_encoding(output), errors="backslashreplace"))
        sys.stdout.buffer.flush()
    return report.exit_status


def _encoding(output: Output) -> str:
    """JSON and SARIF are UTF-8 wherever they go; text is what the stream takes."""
    return "utf-8" if output.json or output.sarif else sys.stdout.encoding or "utf-8"


def _rendered(report: Report, output: Output) -> str:
    if output.json:
        return json_report.render(report)
    if output.sarif:
        return sarif.render(report)
    if output.quiet:
        return terminal.quiet(report)
    if output.file:
        return terminal.render(report)
    return terminal.render(report, terminal.look_of(sys.stdout, os.environ))
