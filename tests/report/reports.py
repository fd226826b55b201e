"""Synthetic reports: none was measured, every name and number is made up."""

from hypervigil.core.evidence import Evidence, Span
from hypervigil.core.facts import Gap
from hypervigil.core.finding import Confidence, Finding, Observation, Severity, Verdict, Violation
from hypervigil.core.report import (
    Candidate,
    CheckPage,
    Exhibit,
    Line,
    Property,
    Region,
    Report,
    RunRecord,
    coverage_of,
    overall,
)
from tests.report.exhibits import HANDLER, HOOK, SLOT, exhibits

IMAGE = Evidence(
    id="image",
    kind="memory/raw",
    name="host-07.raw",
    size=512 * 1024**2,
    digest="sha256-4m:" + "5f" * 32,
    chunks=((45, "0c" * 32), (124, "d7" * 32)),
    acquired="pmemsave, 2026-11-24T08:02:11Z",
    notes=("the last page is zero",),
)
PACKAGE = Evidence(
    id="package", kind="package/deb", name="linux-image-6.1.0.deb", size=69_632, digest="sha256:" + "a1" * 32
)

GAP = Gap("page table at physical 0x1fe03000", "not in the image")
TABLES = "page tables from swapper_pg_dir"
SYMBOLS = "kallsyms in the image"
TYPES = "BTF in the image"

HOLDS = (
    ("KRN-001", "kernel text is not writable", Severity.CRITICAL),
    ("KRN-003", "system calls land in kernel text", Severity.CRITICAL),
    ("KRN-004", "interrupt gates lead to kernel entry code", Severity.CRITICAL),
    ("KRN-007", "every executable page has an owner", Severity.CRITICAL),
    ("KVM-004", "KVM file operations belong to KVM", Severity.HIGH),
    ("MOD-002", "every module is in every list of modules", Severity.HIGH),
    ("TRC-001", "ftrace hooks belong to registered tracers", Severity.MEDIUM),
)


def finding(
    check: str,
    title: str,
    verdict: Verdict,
    severity: Severity = Severity.HIGH,
    *,
    confidence: Confidence = Confidence.HIGH,
    required: bool = True,
    why: str = "",
    violations: tuple[Violation, ...] = (),
    observations: tuple[Observation, ...] = (),
    gaps: tuple[Gap, ...] = (),
    rests_on: tuple[str, ...] = (SYMBOLS, TYPES),
) -> Finding:
    return Finding(
        check=check,
        title=title,
        verdict=verdict,
        severity=severity,
        confidence=confidence,
        required=required,
        why=why,
        violations=violations,
        observations=observations,
        gaps=gaps,
        rests_on=rests_on,
    )


def page(check: str, name: str) -> CheckPage:
    return CheckPage(
        check=check,
        name=name,
        rationale="KVM calls its vendor module through `kvm_x86_ops` on every exit of every guest.\nWho rewrites a "
        "slot runs code of his own inside the hypervisor, below all guests, and no guest can tell.",
        remedy="Treat the host and every guest that ran on it as compromised. Keep the image, move the guests to a "
        "host that was\nbooted from trusted media, and look in the disassembly for what the hook does.",
        false_positives="Live patches of the vendor, which register themselves and are listed as observations.",
        cannot_see="A hook placed inside the function that the slot names.",
        standards=("ATT&CK T1014", "NIST SP 800-125A HY-SR-2"),
        sources=("linux: arch/x86/include/asm/kvm-x86-ops.h", "linux commit 9af5471bdbb2 (5.12)"),
    )


def report(findings: tuple[Finding, ...], **changes: object) -> Report:
    verdict, status = overall(findings)
    fields: dict[str, object] = {
        "run": RunRecord(
            tool_version="0.1.0",
            command="integrity",
            target="host-07.raw",
            profile="default",
            as_of="2026-11-24T08:10:00Z",
            data_sets=(Property("attack", "17.1"),),
        ),
        "verdict": verdict,
        "exit_status": status,
        "coverage": coverage_of(findings),
        "evidence": (IMAGE, PACKAGE),
        "subject": (
            Property("kernel", "Linux 6.1.0-18-cloud-amd64"),
            Property("hypervisor", "KVM with kvm_amd, 1 virtual machine"),
        ),
        "candidates": (
            Candidate(
                what="VMCOREINFO", where="physical 0x2e11000", kept=True, reason="its page tables map the kernel"
            ),
            Candidate(
                what="VMCOREINFO", where="physical 0x1a3b7000", kept=False, reason="no KERNELOFFSET: a stale copy"
            ),
        ),
        "findings": findings,
        "checks": tuple(page(f.check, f.check.lower().replace("-", "_")) for f in findings),
        "memory_map": memory_map(),
        "limits": (
            "What runs below the observed layer (firmware, SMM, a hypervisor under this host) leaves no trace here.",
            "The image's own descriptions (symbols, types) were read from memory that an attacker can write.",
        ),
    }
    return Report(**(fields | changes))  # type: ignore[arg-type]  # a builder with defaults: msgspec checks nothing here, the tests do


def memory_map() -> tuple[Region, ...]:
    modules = ("irqbypass", "ccp", "kvm", "kvm_amd", "virtio_net", "nf_tables")
    base = 0xFFFF_FFFF_C09C_0000
    regions = [
        Region(start=0xFFFF_FFFF_8000_0000 + 0x100_0000, end=0xFFFF_FFFF_8220_0000, owner="kernel", kind="kernel text"),
        Region(start=0xFFFF_8880_0009_8000, end=0xFFFF_8880_0009_9000, owner="trampoline", kind="real mode"),
    ]
    for number, owner in enumerate(modules):
        start = base + number * 0x4_0000
        regions.append(Region(start=start, end=start + 0x1000 * (3 + 11 * number), owner=owner, kind="module text"))
    regions.append(
        Region(start=SLOT & ~0xFFF, end=(SLOT & ~0xFFF) + 0x2000, owner="kvm", kind="module data", writable=True)
    )
    regions.append(Region(start=HOOK, end=HOOK + 0x2000, owner="", kind="no owner", writable=True))
    return tuple(sorted(regions, key=lambda r: r.start))


def passed() -> tuple[Finding, ...]:
    return tuple(finding(check, title, Verdict.HOLDS, severity) for check, title, severity in HOLDS)


def absent() -> Finding:
    return finding(
        "XEN-001",
        "hvm_funcs lead to Xen text",
        Verdict.NOT_APPLICABLE,
        why="this kernel is no Xen domain",
        rests_on=(SYMBOLS,),
    )


def clean() -> Report:
    return report((*passed(), absent()))


def slot_violation() -> Violation:
    return Violation(
        message="the slot leads to 0xffffffffc0c81000, which no module owns",
        spans=(Span("image", 0x1F3A_12C0, 0x1F3A_12C8), Span("image", 0x0B40_1000, 0x0B40_1020)),
        object="kvm_x86_ops.handle_exit",
        address=SLOT,
        found="0xffffffffc0c81000 (no owner)",
        expected="svm_handle_exit (0xffffffffc09f2310)",
    )


def violated() -> Report:
    unowned = Violation(
        message="2 executable pages belong to nothing that the kernel knows, and they are writable",
        spans=(Span("image", 0x0B40_1000, 0x0B40_3000),),
        address=HOOK,
        found="executable, writable",
        expected="an owner: kernel text, a module, BPF, a trampoline",
    )
    findings = (
        *(f for f in passed() if f.check != "KRN-007"),
        finding(
            "KVM-001",
            "KVM dispatch slots lead to KVM functions",
            Verdict.VIOLATED,
            Severity.CRITICAL,
            violations=(slot_violation(),),
        ),
        finding(
            "KRN-007",
            "every executable page has an owner",
            Verdict.VIOLATED,
            Severity.HIGH,
            confidence=Confidence.MEDIUM,
            violations=(unowned,),
            gaps=(GAP,),
            rests_on=(TABLES,),
        ),
        finding(
            "TRC-002",
            "kprobes are announced",
            Verdict.HOLDS,
            Severity.LOW,
            observations=(
                Observation(message="a kprobe of perf stands here", object="kvm_arch_vcpu_ioctl", address=HANDLER),
            ),
        ),
        *not_decided(),
        absent(),
    )
    return report(findings, exhibits=exhibits())


def not_decided() -> tuple[Finding, ...]:
    return (
        finding(
            "KVM-009",
            "no guest maps a frame of the host's text",
            Verdict.INCOMPLETE,
            Severity.CRITICAL,
            gaps=(GAP, Gap("nested page table of VM 1 at physical 0x0", "root is zero")),
        ),
        finding(
            "KRN-012",
            "MSR_LSTAR leads to entry_SYSCALL_64",
            Verdict.UNKNOWN,
            required=False,
            why="the image holds no registers; an ELF dump does",
            rests_on=(),
        ),
    )


def undecided() -> Report:
    return report((*passed(), *not_decided(), absent()))


EVIL = (
    "</style></title><script>alert(1)</script>\x1b[2J\x1b]8;;file:///etc\x07\u202egnp.exe\u2066\x00\r\n"
    "\"'><img src=x>{{7*7}}"
)
"""What a rootkit would name its module if names reached a terminal or a browser unchanged."""


def hostile_findings() -> tuple[Finding, ...]:
    evil = Violation(message=EVIL, spans=(Span(EVIL, 0, 1),), object=EVIL, address=2**64 - 1, found=EVIL, expected=EVIL)
    violated_by_evil = finding(
        EVIL,
        EVIL,
        Verdict.VIOLATED,
        Severity.CRITICAL,
        violations=(evil, evil),
        observations=(Observation(message=EVIL, object=EVIL, address=0),),
        gaps=(Gap(EVIL, EVIL),),
        rests_on=(EVIL, "\udc80"),
    )
    unknown = finding(EVIL + "2", EVIL, Verdict.UNKNOWN, why=EVIL, rests_on=())
    return violated_by_evil, unknown, finding("N", "n", Verdict.NOT_APPLICABLE, why=EVIL)


def hostile_page() -> CheckPage:
    return CheckPage(
        check=EVIL,
        name=EVIL,
        rationale=EVIL,
        remedy=EVIL,
        false_positives=EVIL,
        cannot_see=EVIL,
        standards=(EVIL,),
        sources=(EVIL,),
    )


def hostile_exhibits() -> tuple[Exhibit, ...]:
    shown = Exhibit(
        check=EVIL,
        violation=0,
        title=EVIL,
        address=None,
        spans=(Span(EVIL, 0, 1),),
        found=EVIL,
        expected=EVIL,
        after=(Line(0, EVIL, EVIL),),
        note=EVIL,
    )
    return shown, Exhibit(check=EVIL, violation=99, title=EVIL, address=0, spans=())


def hostile() -> Report:
    """Every string that an image can shape is `EVIL`."""
    return report(
        hostile_findings(),
        run=RunRecord(tool_version=EVIL, command=EVIL, target=EVIL, profile=EVIL, as_of=EVIL),
        evidence=(Evidence(id=EVIL, kind=EVIL, name=EVIL, size=1, digest=EVIL, acquired=EVIL, notes=(EVIL,)),),
        subject=(Property(EVIL, EVIL),),
        candidates=(Candidate(what=EVIL, where=EVIL, kept=False, reason=EVIL),),
        exhibits=hostile_exhibits(),
        checks=(hostile_page(),),
        memory_map=(Region(start=0, end=4096, owner=EVIL, kind=EVIL, writable=True),),
        limits=(EVIL,),
    )


def huge() -> Report:
    """Every site of a kernel rewritten: thousands of violations of one check, hundreds of checks, a full map."""
    many = tuple(
        Violation(
            message=f"site {number} calls an unknown trampoline",
            spans=(Span("image", number * 16, number * 16 + 5),),
            object=f"site_{number}",
            address=SLOT + number * 16,
        )
        for number in range(2_000)
    )
    findings = tuple(
        finding(f"KRN-{number:03}", f"statement {number} is true", Verdict.HOLDS, Severity.LOW) for number in range(400)
    )
    sites = finding("KRN-900", "every call site is listed", Verdict.VIOLATED, violations=many)
    regions = tuple(
        Region(
            start=SLOT + number * 0x3000, end=SLOT + number * 0x3000 + 0x1000, owner=f"module{number}", kind="module"
        )
        for number in range(3_000)
    )
    return report((*findings, sites), memory_map=regions)
