"""Finding the checks: scan the package, read each one's data file, refuse anything half there.

A check that does not import or whose metadata does not decode fails the whole run: a missing check must not look
like a check that found nothing.
"""

import importlib
import pkgutil
from functools import cache
from importlib.resources import files
from types import ModuleType

import msgspec

import hypervigil.checks
from hypervigil.core.check import Check, CheckFunction, Metadata, check_id_of, needs_of
from hypervigil.core.errors import ProgramError

_DOMAINS = ("kernel", "hypervisor")
_NO_IMPORT = (ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError, LookupError, OSError)
"""What a module raises that is half there or wrong."""


@cache
def load_checks() -> tuple[Check, ...]:
    """Load every check of the package, sorted by id.

    Raises:
        ProgramError: a check does not import, lacks its data file, or shares an id or alias with another.
    """
    found: dict[str, Check] = {}
    for domain in _DOMAINS:
        package = _imported(f"{hypervigil.checks.__name__}.{domain}")
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            subject = _load(_imported(info.name))
            for name in (subject.id, *subject.about.aliases):
                if name in found:
                    raise ProgramError(f"two checks are called {name}: {found[name].name} and {subject.name}")
                found[name] = subject
    return tuple(sorted({check.id: check for check in found.values()}.values(), key=lambda c: c.id))


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except _NO_IMPORT as fault:
        raise ProgramError(f"{name} does not import: {type(fault).__name__}: {fault}") from fault


def _load(module: ModuleType) -> Check:
    functions: list[tuple[str, CheckFunction]] = [
        (check_id, value)
        for value in vars(module).values()
        if (check_id := check_id_of(value)) and value.__module__ == module.__name__
    ]
    if len(functions) != 1:
        raise ProgramError(f"{module.__name__} holds {len(functions)} checks, it must hold one")
    check_id, function = functions[0]
    package, _, stem = module.__name__.rpartition(".")
    try:
        text = files(package).joinpath(f"{stem}.toml").read_bytes()
        about = msgspec.toml.decode(text, type=Metadata)
    except (OSError, msgspec.DecodeError) as fault:
        raise ProgramError(f"{check_id}: its data file {stem}.toml cannot be read: {fault}") from fault
    if function.__name__ != stem:
        raise ProgramError(f"{check_id}: {function.__name__} stands in {stem}.py; file and function share a name")
    return Check(id=check_id, function=function, needs=needs_of(function), about=about)
