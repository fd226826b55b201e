"""The report as JSON: the form that is stored, exchanged and rendered again.

Keys are sorted, indentation is two spaces, a newline ends the document: the same report gives the same bytes.
Virtual addresses are strings such as ``"0xffffffffc0a1b2c0"``. As numbers they lie beyond 2^53, where a reader that
computes in double precision (jq before 1.7, every JavaScript program) silently shows another address; RFC 7493
(I-JSON), section 2.2, asks for strings there. Offsets into evidence, sizes and counts are numbers.
"""

import re
from collections.abc import Callable, Mapping
from inspect import cleandoc

import msgspec

from hypervigil.core.errors import DecodeError, ProgramError, UnsupportedEvidence
from hypervigil.core.finding import Verdict
from hypervigil.core.report import SCHEMA_VERSION, Report, coverage_of, overall
from hypervigil.report.visible import hides, storable

_WHAT = "JSON report"
_ADDRESS = re.compile(r"0x[0-9a-f]{1,32}")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7e]")
_NUMBERS = frozenset({"address"})
_REGION_NUMBERS = frozenset({"start", "end"})
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def render(report: Report) -> str:
    r"""The report as JSON text. Lone surrogates, which JSON cannot carry, are spelled out as ``\udc80``."""
    return pretty(_addresses(storable(msgspec.to_builtins(report)), _spelled))


def read_json(data: bytes) -> Report:
    """The report that `render` wrote.

    Fields that a later minor version added are ignored.

    Raises:
        UnsupportedEvidence: the document has a schema of another major version.
        DecodeError: it is not a report, or it contradicts itself: verdict, exit status and coverage follow from the
            findings, and a finding's verdict from what it lists.
    """
    try:
        document = msgspec.json.decode(data)
        _refuse_other_major(document)
        report = msgspec.convert(_addresses(document, _parsed), Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ProgramError) as error:
        raise DecodeError(_WHAT, str(error)) from error
    _refuse_contradiction(report)
    return report


def schema() -> str:
    """The JSON Schema of what `render` writes, generated from the types."""
    generated = msgspec.json.schema(Report)
    for name, definition in generated["$defs"].items():
        if "description" in definition:
            definition["description"] = cleandoc(definition["description"]).partition("\n\nRaises:")[0]
        numbers = _NUMBERS | (_REGION_NUMBERS if name == "Region" else frozenset())
        for field in numbers & set(definition.get("properties", {})):
            definition["properties"][field] = _as_address(definition["properties"][field])
    return pretty({"$schema": _DIALECT, "title": f"Hypervigil report, schema {SCHEMA_VERSION}", **generated})


def pretty(document: object) -> str:
    r"""JSON text with sorted keys, two spaces of indentation and a newline at the end.

    JSON leaves C1 controls and bidirectional controls as they are; written to a terminal they would act. They are
    written as ``\u202e``, which every reader of JSON turns back.
    """
    text = msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2).decode()
    return _BEYOND_ASCII.sub(_harmless, text) + "\n"


def _harmless(found: re.Match[str]) -> str:
    character = found[0]
    if not hides(character):
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _refuse_other_major(document: object) -> None:
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, str):
        raise DecodeError(_WHAT, "no schema_version; this is not a report of hypervigil")
    ours = SCHEMA_VERSION.partition(".")[0]
    if version.partition(".")[0] != ours:
        raise UnsupportedEvidence(
            f"report schema {version[:20]!r} is not {ours}.x; render it with the version of hypervigil that wrote it"
        )


def _refuse_contradiction(report: Report) -> None:
    for finding in report.findings:
        if finding.gaps and finding.verdict is Verdict.HOLDS:
            raise DecodeError(_WHAT, f"finding {finding.check!r} says holds, but parts of what it reads were not seen")
    verdict, status = overall(report.findings)
    if (report.verdict, report.exit_status) != (verdict, status):
        said = f"it says {report.verdict} (exit status {report.exit_status})"
        raise DecodeError(_WHAT, f"{said}, but its findings give {verdict} (exit status {status})")
    if report.coverage != coverage_of(report.findings):
        raise DecodeError(_WHAT, "its coverage does not follow from its findings")


def _addresses(document: object, change: Callable[[object], object], *, region: bool = False) -> object:
    """The tree with every address changed; the interpreter's recursion limit bounds its depth."""
    if isinstance(document, list):
        return [_addresses(item, change, region=region) for item in document]
    if not isinstance(document, Mapping):
        return document
    numbers = _NUMBERS | _REGION_NUMBERS if region else _NUMBERS
    return {
        key: change(value) if key in numbers else _addresses(value, change, region=key == "memory_map")
        for key, value in document.items()
    }


def _spelled(value: object) -> object:
    return f"{value:#x}" if isinstance(value, int) else value


def _parsed(value: object) -> object:
    """The number that an address spells; anything else is left for the type check to refuse."""
    if value is None:
        return None
    return int(value, 16) if isinstance(value, str) and _ADDRESS.fullmatch(value) else str(value)


def _as_address(field: Mapping[str, object]) -> dict[str, object]:
    address: dict[str, object] = {"type": "string", "pattern": f"^{_ADDRESS.pattern}$"}
    return {**field, "anyOf": [address, {"type": "null"}]} if "anyOf" in field else address
