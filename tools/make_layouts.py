"""Write the layouts of structures that a kernel's BTF lacks, from its vendor's debug symbols.

Linux 5.10 has type information for the kernel but none for modules (that came with 5.11), so nothing in an image
says what KVM's own structures look like. Run this on the kvm.ko of a debug package:

    uv run python tools/make_layouts.py "Debian linux-image-5.10.0-45-amd64-dbg 5.10.259-1" kvm.ko > layouts.json
"""

import json
import sys

import drgn

STRUCTURES = (
    "kvm_device",
    "kvm_device_ops",
    "kvm_io_device",
    "kvm_io_device_ops",
    "kvm_kernel_irqfd",
    "kvm_pmu_ops",
    "kvm_x86_nested_ops",
    "kvm_x86_ops",
    "opcode",
    "x86_emulate_ops",
)


def spell(kind: drgn.Type) -> str:
    """The part of C that the catalogue reads back: a pointer, an integer, or a structure by name."""
    while kind.kind is drgn.TypeKind.TYPEDEF:
        kind = kind.type
    if kind.kind is drgn.TypeKind.POINTER:
        return "function *" if kind.type.kind is drgn.TypeKind.FUNCTION else "void *"
    if kind.kind in {drgn.TypeKind.STRUCT, drgn.TypeKind.UNION} and kind.tag:
        return str(kind.type_name())
    if kind.kind is drgn.TypeKind.UNION and all(spell(m.type).endswith("*") for m in kind.members or ()):
        return "void *"
    return f"{drgn.sizeof(kind)} bytes"


def layout(program: drgn.Program, name: str) -> dict[str, object]:
    """Size and members of one structure: ``[name, byte offset, type]``."""
    kind = program.type(f"struct {name}")
    members = [[m.name or "u", m.bit_offset // 8, spell(m.type)] for m in kind.members or () if not m.bit_field_size]
    return {"size": kind.size, "members": members}


def main() -> None:
    """Print the layouts as JSON."""
    source, *paths = sys.argv[1:]
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    for path in paths:
        module = program.extra_module(path, create=True)
        module.try_file(path, force=True)
    found = {f"struct {name}": layout(program, name) for name in STRUCTURES}
    json.dump({"source": source, "types": found}, sys.stdout, indent=1)


main()
