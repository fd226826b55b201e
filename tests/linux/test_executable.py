import pytest

from hypervigil.core.facts import Observed
from hypervigil.core.units import PAGE_SIZE
from hypervigil.linux.executable import Claim, executable_claims
from hypervigil.linux.vmap import vmap_areas
from tests.linux.c_types import CTypes, words
from tests.linux.host_builder import host, system_of
from tests.linux.kernel_builder import HEAP, VMALLOC, KernelImage
from tests.linux.linux_types import KERNEL
from tests.linux.module_builder import FIRST

AWAY = HEAP + (1 << 41)
WINDOW = FIRST + 0x60_0000


def claims(image: KernelImage) -> Observed[Claim]:
    system = system_of(image)
    return executable_claims(system.kernel, vmap_areas(system.kernel).items, system.modules.items)


def owned(image: KernelImage) -> dict[str, tuple[int, int, str]]:
    found = claims(image)
    assert found.gaps == ()
    assert list(found.items) == sorted(found.items)
    return {c.owner: (c.start, c.end, c.kind) for c in found.items}


def test_every_source_claims_its_own() -> None:
    image = host()
    jit, slots, trampoline = (image.at[name] for name in ("jit", "slots", "trampoline"))
    ops = f"ftrace trampoline of ops at {image.at['ftrace ops']:#x}"
    assert owned(image) == {
        "BPF bpf_prog_test": (jit + 64, jit + PAGE_SIZE, "jit"),
        f"BPF program at {VMALLOC:#x}": (jit + 64, jit + 128, "jit"),
        "kprobe_insn_slots": (slots, slots + PAGE_SIZE, "trampoline"),
        ops: (trampoline, trampoline + PAGE_SIZE, "trampoline"),
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [("bpf_prog_1234_x", "jit"), ("bpf_trampoline_7", "BPF trampoline"), ("bpf_dispatcher_xdp", "BPF trampoline")],
)
def test_code_that_the_kernel_rewrites_is_told_apart(name: str, kind: str) -> None:
    image = host()
    image.member("bpf_ksym", image.at["bpf symbol"], "name", name.encode())
    assert owned(image)[f"BPF {name}"][2] == kind


def test_a_pack_is_claimed_from_its_chunk_on() -> None:
    image = host()
    image.set("bpf_ksym", image.at["bpf symbol"], start=image.at["jit"] + 0x90, end=image.at["jit"] + 0x123)
    assert owned(image)["BPF bpf_prog_test"][:2] == (image.at["jit"] + 0x80, image.at["jit"] + 0x123)


@pytest.mark.parametrize(("start", "end"), [(16, 16), (32, 16), (0, (1 << 24) + 1), (1 << 63, 0)])
def test_an_image_of_an_impossible_size_claims_nothing(start: int, end: int) -> None:
    image = host()
    image.set("bpf_ksym", image.at["bpf symbol"], start=start, end=end)
    assert "BPF bpf_prog_test" not in owned(image)


def test_before_5_18_a_program_s_image_is_whole_pages() -> None:
    image = host()
    image.types = CTypes({**KERNEL, "bpf_binary_header": "pages:u32 image:u8[4]"})
    image.put_tables()
    assert owned(image)[f"BPF program at {VMALLOC:#x}"][:2] == (image.at["jit"], image.at["jit"] + 128)


@pytest.mark.parametrize(
    "forge",
    [
        lambda image: image.member("bpf_prog_aux", image.at["bpf aux"], "prog", VMALLOC + 8),
        lambda image: image.member("bpf_prog", VMALLOC, "aux", AWAY),
        lambda image: image.member("bpf_prog", VMALLOC, "jited_len", 0),
        lambda image: image.member("bpf_prog", VMALLOC, "jited_len", 0x7FFF_FFFF),
    ],
)
def test_what_only_looks_like_a_program_claims_nothing(forge: object) -> None:
    image = host()
    forge(image)  # type: ignore[operator] # each is one of those above
    assert f"BPF program at {VMALLOC:#x}" not in owned(image)


def test_the_real_mode_trampoline_begins_at_its_text() -> None:
    image = host()
    frame = image.page(WINDOW, b"\x90" * 0x3000, writable=False, executable=True)
    header = image.object("real_mode_header", text_start=frame + 0x1000, ro_end=frame + 0x2800)
    image.poke(WINDOW, image.peek(header, 8))
    image.pointers("real_mode_header", WINDOW)
    image.put_tables()
    assert owned(image)["real mode trampoline"] == (WINDOW + 0x1000, WINDOW + 0x3000, "trampoline")
    image.poke(image.symbols["real_mode_header"][0], words(0))
    assert "real mode trampoline" not in owned(image)


def test_a_kernel_without_a_source_lacks_nothing() -> None:
    image = host()
    for name in ("bpf_kallsyms", "kprobe_insn_slots", "ftrace_ops_list"):
        image.symbols.pop(name)
    image.put_tables()
    assert set(owned(image)) == {f"BPF program at {VMALLOC:#x}"}


@pytest.mark.parametrize(
    ("source", "damage"),
    [
        ("BPF symbols", lambda image: image.poke(image.symbols["bpf_kallsyms"][0], words(AWAY))),
        ("kprobe slots", lambda image: image.member("kprobe_insn_page", image.at["slot page"], "list.next", 0)),
        ("ftrace trampolines", lambda image: image.member("ftrace_ops", image.at["ftrace ops"], "next", AWAY)),
        ("ftrace trampolines", lambda image: image.poke(image.symbols["ftrace_ops_list"][0], words(0x1000))),
    ],
)
def test_a_source_that_leads_astray_is_a_gap_and_keeps_the_others(source: str, damage: object) -> None:
    image = host()
    damage(image)  # type: ignore[operator] # each is one of those above
    found = claims(image)
    assert [gap.what for gap in found.gaps] == [source]
    assert len(found.items) >= 3


def test_trampolines_on_their_list_are_claimed_to_the_end_of_a_page() -> None:
    image = host()
    ops = image.object("ftrace_ops", trampoline=WINDOW, trampoline_size=PAGE_SIZE + 1)
    image.link(image.pointers("ftrace_ops_trampoline_list", 0, 0), ops + image.types.offset("ftrace_ops", "list"))
    image.put_tables()
    found = owned(image)[f"ftrace trampoline of ops at {ops:#x}"]
    assert found == (WINDOW, WINDOW + 2 * PAGE_SIZE, "trampoline")
    head = image.symbols["ftrace_ops_trampoline_list"][0]
    image.poke(head, words(AWAY))
    assert [gap.what for gap in claims(image).gaps] == ["ftrace trampolines"]
    image.poke(head, words(ops + image.types.offset("ftrace_ops", "list")))
    image.member("ftrace_ops", ops, "trampoline", 0)
    assert f"ftrace trampoline of ops at {ops:#x}" not in owned(image)


def test_thunks_of_a_module_are_pages() -> None:
    image = host()
    pages = image.heap(words(WINDOW, WINDOW + 0x4000))
    image.set("module", image.at["module kvm"], its_num_pages=2, its_page_array=pages)
    found = [c for c in claims(image).items if c.owner == "thunks of kvm"]
    assert [(c.start, c.end) for c in found] == [(a, a + PAGE_SIZE) for a in (WINDOW, WINDOW + 0x4000)]
    image.set("module", image.at["module kvm"], its_num_pages=-1)
    assert [gap.what for gap in claims(image).gaps] == ["indirect target thunks"]


def test_the_hypercall_page_is_claimed_where_there_is_one() -> None:
    image = host()
    image.pointers("hv_hypercall_pg", WINDOW)
    image.pointers("other", 0)
    image.put_tables()
    assert owned(image)["hypercall page"] == (WINDOW, WINDOW + PAGE_SIZE, "trampoline")
    image.poke(image.symbols["hv_hypercall_pg"][0], words(0))
    assert "hypercall page" not in owned(image)


@pytest.mark.parametrize(
    ("layout", "members", "pages"),
    [
        ("map:bpf_map image:ptr", {"image": WINDOW}, 1),
        ("map:bpf_map image_pages:ptr[8] image_pages_cnt:u32", {"image_pages[0]": WINDOW, "image_pages_cnt": 1}, 1),
        (
            "map:bpf_map image_pages:ptr[8] image_pages_cnt:u32",
            {"image_pages[0]": WINDOW, "image_pages[1]": WINDOW + PAGE_SIZE, "image_pages_cnt": 99},
            2,
        ),
        ("map:bpf_map image:ptr", {"image": 0}, 0),
    ],
)
def test_operations_that_bpf_programs_serve_as_have_images(layout: str, members: dict[str, int], pages: int) -> None:
    image = host()
    image.types = CTypes({**KERNEL, "bpf_map": "ops:ptr id:u32", "bpf_struct_ops_map": layout})
    operations = image.pointers("bpf_struct_ops_map_ops", 0)
    other, made = image.object("bpf_map", ops=operations + 8), image.object("bpf_struct_ops_map")
    for path, value in {"map.ops": operations, **members}.items():
        image.member("bpf_struct_ops_map", made, path, value)
    node = image.object("xa_node")
    for slot, entry in enumerate((0, other, made)):
        image.member("xa_node", node, f"slots[{slot}]", entry)
    image.variable("map_idr", "idr", idr_rt__xa_head=node | 2)
    image.put_tables()
    found = [c for c in claims(image).items if "operations" in c.owner]
    assert [(c.start - WINDOW, c.end - WINDOW, c.kind) for c in found] == [
        (page * PAGE_SIZE, (page + 1) * PAGE_SIZE, "BPF trampoline") for page in range(pages)
    ]


def test_maps_that_cannot_all_be_read_are_a_gap() -> None:
    image = host()
    image.types = CTypes({**KERNEL, "bpf_map": "ops:ptr id:u32"})
    image.pointers("bpf_struct_ops_map_ops", 0)
    image.variable("map_idr", "idr", idr_rt__xa_head=AWAY | 2)
    image.put_tables()
    assert [gap.what for gap in claims(image).gaps] == ["BPF operations"]


PAGE = "flags:u64 lru:list_head mapping:ptr index:u64 private:u64 count:u64"


@pytest.mark.parametrize("name", ["kexec_image", "kexec_crash_image"])
@pytest.mark.parametrize("based", [False, True])
def test_the_code_that_starts_the_next_kernel_is_a_page_of_the_direct_map(name: str, based: bool) -> None:  # noqa: FBT001 - a case
    image = host()
    image.types = CTypes({**KERNEL, "page": PAGE, "kimage": "head:u64 control_code_page:ptr"})
    size, pages = image.types.size("page"), 0xFFFF_EA00_0000_0000
    if based:
        pages = HEAP + (1 << 44)
        image.pointers("vmemmap_base", pages)
        image.pointers("page_offset_base", HEAP + (1 << 40))
    made = image.object("kimage", control_code_page=pages + 7 * size)
    image.pointers(name, made)
    image.put_tables()
    start = HEAP + based * (1 << 40) + 7 * PAGE_SIZE
    assert owned(image)[f"{name}, code that starts the next kernel"] == (start, start + PAGE_SIZE, "trampoline")
    image.member("kimage", made, "control_code_page", pages + 7 * size + 8)
    assert [gap.what for gap in claims(image).gaps] == ["code of the next kernel"]
    image.poke(image.symbols[name][0], words(0))
    assert not any("next kernel" in owner for owner in owned(image))
