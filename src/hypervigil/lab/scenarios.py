"""What the range can show: one file of data a scenario, in `data/scenarios`."""

import hashlib
from collections.abc import Iterator
from importlib import resources
from typing import Literal

import msgspec

from hypervigil.core.errors import ProgramError, UsageError

Kind = Literal["clean", "legitimate", "tampering"]


class Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The host that a scenario needs.

    Attributes:
        memory: MiB of RAM.
        cpus: processors.
        cmdline: words for the kernel's command line.
        cpu_flags: words for QEMU's -cpu.
        vms: nested guests that run.
        vcpus: processors of each.
        modules: kernel modules to load besides kvm-amd, with their options ("kvm-amd npt=0").
        files: further modules, not of the kernel's package; they lie in /mod and `setup` may load them.
        trojan: "module:function" in which one instruction is altered before the module is loaded.
        setup: shell lines to run inside before planting.
    """

    memory: int = 256
    cpus: int = 2
    cmdline: str = ""
    cpu_flags: str = ""
    vms: int = 1
    vcpus: int = 1
    modules: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    trojan: str = ""
    setup: tuple[str, ...] = ()


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a violation must name, so that whoever reads it looks at the right place.

    Attributes:
        object: what the thing is called, in the words of the report. ``*`` stands for anything, ``{object}`` for what
            the truth calls the first change, ``{function}`` for that up to the first space or plus, and ``{x}`` for
            the value x of the truth.
        at: the value of the truth that is its address; if empty, it is that of a changed byte.
    """

    object: str
    at: str = ""


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One host with one tampering, one legitimate modification, or none.

    Attributes:
        title: what is true of the host.
        kind: "clean", "legitimate" or "tampering".
        attack: what a real attack of the class does.
        sources: where that is known from.
        violates: ids of the checks that must find it; no other check may be violated.
        names: what their violations must name, each by one at least.
        host: the host that is booted.
        packages: whether it shows only against the vendor's packages, so that it is judged with them.
        plant: `how` names the planter "module.function"; the rest are its parameters.
        name: the file's name without its ending.
        digest: SHA-256 of the file, hex.
    """

    title: str
    kind: Kind
    attack: str = ""
    sources: tuple[str, ...] = ()
    violates: tuple[str, ...] = ()
    names: tuple[Named, ...] = ()
    host: Host = Host()
    packages: bool = False
    plant: dict[str, object] = {}
    name: str = ""
    digest: str = ""


def each_scenario() -> Iterator[Scenario]:
    """All scenarios, by name."""
    folder = resources.files(__package__) / "data" / "scenarios"
    for file in sorted(folder.iterdir(), key=lambda item: item.name):
        if file.name.endswith(".toml"):
            yield parse_scenario(file.name.removesuffix(".toml"), file.read_bytes())


def parse_scenario(name: str, text: bytes) -> Scenario:
    """Reads one scenario file.

    Raises:
        ProgramError: it is not TOML or not a scenario.
    """
    try:
        scenario = msgspec.toml.decode(text, type=Scenario)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ProgramError(f"scenario {name}: {error}") from error
    return msgspec.structs.replace(scenario, name=name, digest=hashlib.sha256(text).hexdigest())


def named(name: str) -> Scenario:
    """The scenario of that name.

    Raises:
        UsageError: there is none.
    """
    for scenario in each_scenario():
        if scenario.name == name:
            return scenario
    raise UsageError(f"there is no scenario {name}; `hypervigil lab list` names them")
