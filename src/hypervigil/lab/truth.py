"""What is true of an image, known without reading the image, and its JSON.

Addresses are integers here and text ("0x" and hexadecimal digits) in JSON, since many readers of JSON round integers
beyond 2^53 (RFC 7493, section 2.2).
"""

from collections.abc import Callable
from typing import Any

import msgspec

from hypervigil.core.errors import DecodeError
from hypervigil.core.units import VirtAddr
from hypervigil.lab.scenarios import Kind

LAB_VERSION = 1
"""Changes when the same scenario would give another image or truth."""

_ADDRESSES = frozenset({"address", "stub"})
_TABLES = frozenset({"anchors", "values"})


class Change(msgspec.Struct, frozen=True):
    """One run of bytes that was changed.

    Attributes:
        object: what it is, in the kernel's terms ("kvm_x86_ops.handle_exit").
        address: kernel virtual address of the first byte.
        before: the bytes as hex, read inside the host through /proc/kcore before planting.
        after: the same after planting.
    """

    object: str
    address: VirtAddr
    before: str
    after: str


class Planted(msgspec.Struct, frozen=True):
    """The truth about one planting.

    Attributes:
        changes: the bytes that are the tampering; the stub's own bytes come last.
        stub: where the harmless code was put, if any was.
        values: further addresses and numbers by name ("original": where calls went before).
    """

    changes: tuple[Change, ...]
    stub: VirtAddr | None = None
    values: dict[str, int] = {}


class Truth(msgspec.Struct, frozen=True):
    """What is true of an image.

    Attributes:
        scenario: its name.
        title: what is true of the host, as a sentence.
        kind: "clean", "legitimate" or "tampering".
        violates: ids of the checks that must find it.
        release: `uname -r` of the host.
        packages: the kernel's Debian packages and versions.
        cmdline: the host's /proc/cmdline.
        qemu: QEMU's version.
        memory: MiB of RAM.
        planted: what was changed; None where nothing was.
        anchors: addresses of well-known symbols by name, from the host's /proc/kallsyms.
        nested: what the nested guests had done when memory was saved.
        time: when memory was saved, UTC, ISO 8601.
        lab_version: the range's own version of images and truth.
    """

    scenario: str
    title: str
    kind: Kind
    violates: tuple[str, ...]
    release: str
    packages: dict[str, str]
    cmdline: str
    qemu: str
    memory: int
    planted: Planted | None
    anchors: dict[str, VirtAddr]
    nested: dict[str, dict[str, int]]
    time: str
    lab_version: int = LAB_VERSION


def encode_truth(truth: Truth) -> bytes:
    """The truth as indented JSON that ends with a line feed."""
    tree = _translated(msgspec.to_builtins(truth), lambda number: f"{number:#x}")
    return msgspec.json.format(msgspec.json.encode(tree)) + b"\n"


def decode_truth(data: bytes) -> Truth:
    """Reads the JSON that `encode_truth` writes.

    Raises:
        DecodeError: it is something else.
    """
    try:
        tree = _translated(msgspec.json.decode(data), lambda text: int(text, 16))
        return msgspec.convert(tree, Truth)
    except (AttributeError, ValueError, TypeError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DecodeError("truth", str(error)) from error


def _translated(node: Any, change: Callable[[Any], object]) -> Any:  # noqa: ANN401 - a JSON tree
    if isinstance(node, list | tuple):
        return [_translated(item, change) for item in node]
    if not isinstance(node, dict):
        return node
    tree: dict[str, object] = {}
    for key, value in node.items():
        if key in _TABLES:
            tree[key] = {name: change(number) for name, number in value.items()}
        elif key in _ADDRESSES and value is not None:
            tree[key] = change(value)
        else:
            tree[key] = _translated(value, change)
    return tree
