import pytest

from hypervigil.core.evidence import Span
from hypervigil.core.finding import CodeRef, Confidence, Finding, Severity, Verdict, Violation
from hypervigil.core.units import PAGE_SIZE
from hypervigil.extract import exhibits as module
from hypervigil.extract.exhibits import disassemble, exhibits
from tests.linux.host_builder import host, system_of
from tests.linux.kernel_builder import HEAP, TEXT, KernelImage
from tests.linux.module_builder import FIRST

SPAN = (Span("memory", 0, 8),)


def finding(*codes: CodeRef, check: str = "KRN-001", each: int = 1) -> Finding:
    violations = tuple(
        Violation(message="m", object="o", address=1, spans=SPAN, code=codes[at : at + each])
        for at in range(0, len(codes), each)
    )
    return Finding(
        check=check,
        title="t",
        verdict=Verdict.VIOLATED,
        severity=Severity.HIGH,
        confidence=Confidence.HIGH,
        required=True,
        violations=violations,
    )


def code(address: int, size: int = 8, *, as_code: bool = True, expected: str = "") -> CodeRef:
    return CodeRef(title="a place", address=address, size=size, code=as_code, expected=expected)


def test_bytes_are_shown_as_they_stand_in_the_evidence() -> None:
    image = host()
    (shown,) = exhibits(system_of(image), (finding(code(TEXT, 5)),))
    assert (shown.check, shown.violation, shown.title, shown.address) == ("KRN-001", 0, "a place", TEXT)
    assert bytes.fromhex(shown.found) == image.peek(TEXT, 5) == b"\xf3\x0f\x1e\xfa\xc3"
    (span,) = shown.spans
    assert image.data[span.start : span.end] == image.peek(TEXT, 5)
    assert [line.text for line in shown.after] == ["endbr64", "ret"]
    assert (shown.before, shown.note) == ((), "")


def test_what_stood_there_before_is_shown_beside_it() -> None:
    image = host()
    (shown,) = exhibits(system_of(image), (finding(code(TEXT, 5, expected="0f1f440000")),))
    assert [line.text for line in shown.before] == ["nop dword ptr [rax + rax]"]


def test_data_is_not_disassembled() -> None:
    (shown,) = exhibits(system_of(host()), (finding(code(TEXT, 8, as_code=False, expected="00")),))
    assert (shown.after, shown.before, shown.expected) == ((), (), "00")


def test_bytes_across_pages_that_are_apart_are_shown_with_both_places() -> None:
    image = host()
    first, second = image.physical(FIRST + PAGE_SIZE - 0x1000), image.frame()
    image.map(FIRST + PAGE_SIZE, second, writable=False, executable=True)
    image.poke(FIRST + PAGE_SIZE, b"\x90" * 16)
    (shown,) = exhibits(system_of(image), (finding(code(FIRST + PAGE_SIZE - 4, 8)),))
    assert [(s.start, s.end) for s in shown.spans] == [
        (first + PAGE_SIZE - 4, first + PAGE_SIZE),
        (second, second + 4),
    ]


def test_what_cannot_be_shown_says_why() -> None:
    (shown,) = exhibits(system_of(host()), (finding(code(0x1234, expected="90")),))
    assert (shown.found, shown.spans, shown.expected) == ("", (), "90")
    assert shown.note.startswith("these bytes cannot be shown: virtual 0x1")


@pytest.mark.parametrize(("size", "shown_size"), [(0, 1), (-5, 1), (256, 256), (1 << 40, 256)])
def test_an_exhibit_has_1_to_256_bytes(size: int, shown_size: int) -> None:
    (shown,) = exhibits(system_of(host()), (finding(code(TEXT, size)),))
    assert len(shown.found) == 2 * shown_size
    assert len(shown.after) <= 24


def test_exhibits_come_in_the_order_of_violations_and_no_more_than_a_report_can_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MAX_EXHIBITS", 5)
    findings = (
        finding(code(TEXT), code(TEXT + 16), code(TEXT + 32), each=2),
        finding(code(HEAP), code(TEXT), code(TEXT), check="KVM-001"),
    )
    shown = list(exhibits(system_of(host()), findings))
    assert [(e.check, e.violation, e.address) for e in shown] == [
        ("KRN-001", 0, TEXT),
        ("KRN-001", 0, TEXT + 16),
        ("KRN-001", 1, TEXT + 32),
        ("KVM-001", 0, HEAP),
        ("KVM-001", 1, TEXT),
    ]


def lines(image: KernelImage, data: bytes, address: int = TEXT) -> list[str]:
    return [line.text for line in disassemble(system_of(image), data, address)]


def test_branches_name_where_they_lead() -> None:
    image = host()
    target = image.at["dummy_init"]
    far = (target - TEXT - 5).to_bytes(4, "little", signed=True)
    assert lines(image, b"\xe9" + far) == [f"jmp {target:#x} <dummy_init [dummy]>"]
    assert lines(image, b"\xe8" + far) == [f"call {target:#x} <dummy_init [dummy]>"]
    assert lines(image, b"\xeb\x82", TEXT + 0x100) == [f"jmp {TEXT + 0x84:#x} <asm_exc_page_fault+0x4>"]
    assert lines(image, b"\x0f\x84\0\0\0\x70")[0].endswith(", memory of nobody>")


def test_an_address_is_named_only_where_a_symbol_begins() -> None:
    image = host()
    target = image.symbols["exported_one"][0]
    load = b"\x48\xb8" + target.to_bytes(8, "little")
    beside = b"\x48\xb8" + (target + 1).to_bytes(8, "little")
    assert lines(image, load) == [f"movabs rax, {target:#x} <exported_one>"]
    assert lines(image, beside) == [f"movabs rax, {target + 1:#x}"]


@pytest.mark.parametrize("padding", [b"\0", b"\xcc"])
def test_padding_at_the_end_is_not_shown(padding: bytes) -> None:
    assert lines(host(), b"\xc3" + padding * 40) == ["ret"]
    assert len(lines(host(), b"\x90" + padding * 3)) > 1


def test_bytes_that_are_no_code_end_the_lines() -> None:
    assert lines(host(), b"\xc3\x06\x06") == ["ret"]
    shown = disassemble(system_of(host()), b"\x90\x48\x31\xc0", TEXT)
    assert [(line.address, line.bytes) for line in shown] == [(TEXT, "90"), (TEXT + 1, "4831c0")]
