"""What SARIF 2.1.0 demands of the part of it that is written here, as a JSON Schema that admits nothing else.

Stricter than the official schema where that leaves a choice: no property is tolerated that this file does not name.
Section numbers are those of the OASIS standard.
"""

Schema = dict[str, object]

_TEXT: Schema = {"type": "string"}
_INDEX: Schema = {"type": "integer", "minimum": 0}
_BAG: Schema = {"type": "object"}
_LEVEL: Schema = {"enum": ["none", "note", "warning", "error"]}


def _object(required: str = "", **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def _named(*properties: tuple[str, Schema]) -> dict[str, Schema]:
    return dict(properties)


def _array(items: Schema, **more: object) -> Schema:
    return {"type": "array", "items": items, **more}


_MESSAGE = _object("text", text=_TEXT)
_ARTIFACT_LOCATION = _object(uri={"type": "string", "format": "uri-reference"}, index=_INDEX, description=_MESSAGE)
_REGION = _object("byteOffset byteLength", byteOffset=_INDEX, byteLength={"type": "integer", "minimum": 1})  # 3.30.9
_LOGICAL = {**_object(fullyQualifiedName=_TEXT, properties=_BAG), "minProperties": 1}
_LOCATION = {
    **_object(
        id=_INDEX,
        physicalLocation=_object("artifactLocation region", artifactLocation=_ARTIFACT_LOCATION, region=_REGION),
        logicalLocations=_array(_LOGICAL, minItems=1),
    ),
    "minProperties": 1,
}
_RESULT = {
    **_object(
        "ruleId ruleIndex kind level message partialFingerprints properties",
        ruleId=_TEXT,
        ruleIndex=_INDEX,
        kind={"enum": ["pass", "open", "notApplicable", "review", "fail"]},  # 3.27.9
        level=_LEVEL,
        message=_MESSAGE,
        locations=_array(_LOCATION, minItems=1, maxItems=1),
        relatedLocations=_array(_LOCATION, minItems=1, uniqueItems=True),
        partialFingerprints={"type": "object", "additionalProperties": _TEXT, "minProperties": 1},
        properties=_BAG,
    ),
    # 3.27.10: level is none exactly for a kind other than fail
    "if": {"properties": {"kind": {"const": "fail"}}},
    "then": {"properties": {"level": {"enum": ["note", "warning", "error"]}}},
    "else": {"properties": {"level": {"const": "none"}}},
}
_RULE = _object(
    "id shortDescription defaultConfiguration properties",
    id=_TEXT,
    name=_TEXT,
    shortDescription=_MESSAGE,
    fullDescription=_MESSAGE,
    help=_object("text markdown", text=_TEXT, markdown=_TEXT),  # 3.49.13: text is demanded beside markdown
    defaultConfiguration=_object("level", level=_LEVEL),
    properties=_object(
        "precision security-severity tags",
        **_named(
            ("precision", {"enum": ["very-high", "high", "medium"]}),
            ("security-severity", {"type": "string", "pattern": r"^[0-9]\.[0-9]$"}),
            ("tags", _array(_TEXT)),
        ),
    ),
)
_NOTIFICATION = _object(
    "level message associatedRule properties",
    level={"const": "warning"},
    message=_MESSAGE,
    associatedRule=_object("id index", id=_TEXT, index=_INDEX),
    properties=_BAG,
)
_INVOCATION = _object(
    "executionSuccessful exitCode exitCodeDescription toolExecutionNotifications",
    executionSuccessful={"const": True},  # 3.20.14
    exitCode={"type": "integer"},
    exitCodeDescription=_TEXT,
    toolExecutionNotifications=_array(_NOTIFICATION, uniqueItems=True),
    properties=_BAG,
)
_ARTIFACT = _object(
    "location length roles",
    location=_ARTIFACT_LOCATION,
    description=_MESSAGE,
    length=_INDEX,
    roles=_array({"const": "analysisTarget"}),
    hashes={"type": "object", "additionalProperties": _TEXT, "minProperties": 1},
    properties=_BAG,
)
_RUN = _object(
    "tool automationDetails artifacts invocations results properties",
    tool=_object(
        "driver",
        driver=_object("name version rules", name=_TEXT, version=_TEXT, rules=_array(_RULE, uniqueItems=True)),
    ),
    automationDetails=_object("id", id=_TEXT),
    artifacts=_array(_ARTIFACT, uniqueItems=True),  # 3.14.15
    invocations=_array(_INVOCATION, minItems=1, maxItems=1),
    results=_array(_RESULT),
    properties=_BAG,
)

LOG: Schema = {
    **_object(
        "$schema version runs",
        **_named(
            ("$schema", {"type": "string", "pattern": r"sarif-schema-2\.1\.0\.json$"}),
            ("version", {"const": "2.1.0"}),
            ("runs", _array(_RUN, minItems=1, maxItems=1)),
        ),
    ),
    "$schema": "https://json-schema.org/draft/2020-12/schema",
}
