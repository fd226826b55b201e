"""The bytes that prove the made-up violation of a dispatch slot: the slot, where it leads, what it should lead to."""

from hypervigil.core.evidence import Span
from hypervigil.core.report import Exhibit, Line

SLOT = 0xFFFF_FFFF_C0A1_B2C0
HANDLER = 0xFFFF_FFFF_C09F_2310
HOOK = 0xFFFF_FFFF_C0C8_1000

BEFORE = (
    Line(HANDLER, "0f1f440000", "nop dword ptr [rax + rax]"),
    Line(HANDLER + 5, "4157", "push r15"),
    Line(HANDLER + 7, "4156", "push r14"),
    Line(HANDLER + 9, "4155", "push r13"),
)
AFTER = (Line(HANDLER, "e9ebec2800", "jmp 0xffffffffc0c81000"), *BEFORE[1:])
HOOKED = (
    Line(HOOK, "9c", "pushfq"),
    Line(HOOK + 1, "50", "push rax"),
    Line(HOOK + 2, "48b810239fc0ffffffff", "movabs rax, 0xffffffffc09f2310"),
    Line(HOOK + 12, "ffe0", "jmp rax"),
)


def bytes_of(lines: tuple[Line, ...]) -> str:
    return "".join(line.bytes for line in lines)


def exhibits() -> tuple[Exhibit, ...]:
    return slot(), target(), handler(), second_page()


def slot() -> Exhibit:
    return Exhibit(
        check="KVM-001",
        violation=0,
        title="the slot",
        address=SLOT,
        spans=(Span("image", 0x1F3A_12C0, 0x1F3A_12C8),),
        found="0010c8c0ffffffff",
        expected="10239fc0ffffffff",
    )


def target() -> Exhibit:
    return Exhibit(
        check="KVM-001",
        violation=0,
        title="where the slot leads",
        address=HOOK,
        spans=(Span("image", 0x0B40_1000, 0x0B40_100E),),
        found=bytes_of(HOOKED),
        after=HOOKED,
    )


def handler() -> Exhibit:
    return Exhibit(
        check="KVM-001",
        violation=0,
        title="svm_handle_exit itself",
        address=HANDLER,
        spans=(Span("image", 0x1E99_2310, 0x1E99_231B),),
        found=bytes_of(AFTER),
        expected=bytes_of(BEFORE),
        after=AFTER,
        before=BEFORE,
    )


def second_page() -> Exhibit:
    return Exhibit(
        check="KRN-007",
        violation=0,
        title="first page",
        address=HOOK + 0x1000,
        spans=(Span("image", 0x0B40_1000, 0x0B40_100E),),
        note="the second page is not in the image",
    )
