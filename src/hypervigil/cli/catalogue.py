"""``hypervigil checks``: what is checked, why, and what each check cannot see."""

import sys

import click
import msgspec

from hypervigil.checks import load_checks
from hypervigil.core.check import Check
from hypervigil.core.errors import UsageError
from hypervigil.report.checkpages import page


@click.command()
@click.argument("check", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def checks(check: str, *, as_json: bool) -> int:
    """List all checks, or explain one CHECK (such as KVM-001)."""
    known = load_checks()
    chosen = (_named(check, known),) if check else known
    if as_json:
        sys.stdout.write(msgspec.json.encode([_entry(subject) for subject in chosen]).decode() + "\n")
    elif check:
        sys.stdout.write(page(chosen[0]))
    else:
        for subject in chosen:
            sys.stdout.write(f"{subject.id}  {subject.about.severity:<8}  {subject.about.title}\n")
    return 0


def _named(name: str, known: tuple[Check, ...]) -> Check:
    for subject in known:
        if name.upper() in {subject.id, *subject.about.aliases}:
            return subject
    raise UsageError(f"{name}: no such check; `hypervigil checks` lists them")


def _entry(subject: Check) -> dict[str, object]:
    about = msgspec.to_builtins(subject.about)
    about.pop("example", None)
    return {"id": subject.id, "name": subject.name, "reads": [need.__name__ for need in subject.needs], **about}
