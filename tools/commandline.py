"""The command-line reference, from the commands as click knows them.

Each command becomes a section with its usage, its help and a table of its parameters, so that an option without help
shows as an empty cell and fails the test that looks for one.
"""

from collections.abc import Iterator

import click

from hypervigil.report.checkpages import marked


def page(command: click.Command, name: str) -> str:
    """The reference of `command` and of all commands below it, as Markdown."""
    head = "# Command line\n\nThis page is generated from the program. `--help` on any command says the same."
    return "\n\n".join([head, *_each_section(command, name)]) + "\n"


def undescribed(command: click.Command, name: str) -> list[str]:
    """What a reader of the reference would miss: commands and options without a help text."""
    missing = []
    for context in each_context(command, name):
        if not context.command.help:
            missing.append(context.command_path)
        missing += [
            f"{context.command_path} {option.opts[0]}"
            for option in context.command.get_params(context)
            if isinstance(option, click.Option) and not option.hidden and not option.help
        ]
    return missing


def each_context(command: click.Command, name: str) -> Iterator[click.Context]:
    """`command`, called `name`, and all commands below it but for hidden ones, each in its context."""
    yield from _each_context(command, click.Context(command, info_name=name, **command.context_settings))


def _each_context(command: click.Command, context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from _each_context(below, click.Context(below, info_name=name, parent=context))


def _each_section(command: click.Command, name: str) -> Iterator[str]:
    for context in each_context(command, name):
        usage = " ".join([context.command_path, *context.command.collect_usage_pieces(context)])
        yield f"## `{context.command_path}`\n\n```text\n{usage}\n```"
        if context.command.help:
            texts = paragraphs(context.command.help)
            yield "\n\n".join(f"```text\n{text}\n```" if kept else marked(text) for text, kept in texts)
        rows = [row for parameter in context.command.get_params(context) for row in _row(parameter, context)]
        if rows:
            yield "\n".join(["| Parameter | Meaning |", "|---|---|", *rows])


def paragraphs(text: str) -> Iterator[tuple[str, bool]]:
    r"""Paragraphs of a help text, up to a form feed; with ``\b`` before them they keep their lines, as click does."""
    for part in text.partition("\f")[0].strip().split("\n\n"):
        kept = part.removeprefix("\b").strip("\n")
        yield kept, kept != part


def _row(parameter: click.Parameter, context: click.Context) -> Iterator[str]:
    record = parameter.get_help_record(context)
    if record is None and isinstance(parameter, click.Argument):
        record = (parameter.make_metavar(context), "")
    if record is not None:
        names = record[0].replace("|", "\\|")
        yield f"| `{names}` | {marked(record[1]) or 'argument'} |"
