import click
from tools.commandline import page, undescribed


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]}, help="Watch the host.\n\nWithout a TARGET: this machine."
)
@click.option("--quiet", "-q", is_flag=True, help="One line only.")
def watch(*, quiet: bool) -> None:
    del quiet


@watch.command(help="Judge a target.\n\n\b\n0  holds\n1  violated")
@click.argument("target")
@click.option(
    "--profile",
    type=click.Choice(["loose", "strict"]),
    default="strict",
    show_default=True,
    help="What_is required.",
)
def integrity(target: str, profile: str) -> None:
    del target, profile


@watch.command()
@click.option("--speed")
@click.option("--secret", hidden=True)
def silent(speed: str, secret: str) -> None:
    del speed, secret


@watch.command(hidden=True)
def buried() -> None:
    pass


def test_every_visible_command_has_a_section_with_usage_help_and_parameters() -> None:
    text = page(watch, "watch")
    assert "## `watch`\n\n```text\nwatch [OPTIONS] COMMAND [ARGS]...\n```\n\nWatch the host.\n\nWithout" in text
    assert "| `-q, --quiet` | One line only. |" in text
    assert "## `watch integrity`\n\n```text\nwatch integrity [OPTIONS] TARGET\n```\n\nJudge a target." in text
    assert "```text\n0  holds\n1  violated\n```" in text
    assert "| `TARGET` | argument |" in text
    assert "| `-h, --help` | Show this message and exit. |" in text
    assert text.count("`TARGET`") == 1
    assert "buried" not in text
    assert "--secret" not in text


def test_choices_do_not_break_the_table() -> None:
    row = next(line for line in page(watch, "watch").splitlines() if "--profile" in line)
    assert row == r"| `--profile [loose\|strict]` | What\_is required. \[default: strict\] |"


def test_what_lacks_a_help_text_is_named() -> None:
    assert undescribed(watch, "watch") == ["watch silent", "watch silent --speed"]
