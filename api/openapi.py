"""The OpenAPI document: request models follow from the active schema, examples are real.

The three event routes are bare ASGI, so their operations are written here; a test sends their examples.
"""

from typing import Any, Final

from api.access import allow
from api.openapi_answers import ANSWERS
from features.catalogue import Catalogue
from features.schema import Field, Schema

EXAMPLE_TIME_MS: Final = 1_760_000_000_000
_PROBLEMS: Final = {
    "401": "no credential, or an unknown one",
    "403": "the credential's roles may not do this, or it is another tenant's",
    "409": "the id was used before with other content",
    "413": "the body is larger than allowed",
    "422": "the event is invalid; `field` names what is wrong",
    "503": "nothing was recorded; try again after `Retry-After` seconds",
}


def components(catalogue: Catalogue) -> dict[str, Any]:
    """Schemas of the active catalogue's events and answers."""
    schema = catalogue.schema
    return {
        "Transaction": transaction_schema(schema),
        "Label": _closed(
            {"label_id": _id(), "transaction_id": _id(), "time": _time(), "fraud": {"type": "boolean"}},
            ["label_id", "transaction_id", "time", "fraud"],
            label_example(schema),
        ),
        "Event": _closed(
            {
                "event_id": _id(),
                "transaction_id": _id(),
                "time": _time(),
                "kind": {"type": "string", "enum": list(schema.lifecycle)},
                "amount": {"type": "integer", "minimum": 0, "maximum": schema.amount_max},
            },
            ["event_id", "transaction_id", "time", "kind"],
            event_example(schema),
        ),
        **ANSWERS,
        "Answer": ANSWER,
        "Accepted": {
            "type": "object",
            "required": ["id", "transaction_id", "replay"],
            "properties": {
                "id": {"type": "string"},
                "transaction_id": {"type": "string"},
                "replay": {"type": "boolean"},
            },
        },
        "Problem": PROBLEM,
    }


def transaction_schema(schema: Schema) -> dict[str, Any]:
    """JSON Schema of a transaction, closed: unknown fields are refused."""
    properties: dict[str, Any] = {schema.id: _id(), schema.time: _time()}
    for spec in schema.fields:
        properties[spec.name] = _field(spec, schema)
    required = [schema.id, schema.time, *(f.name for f in schema.fields if f.required)]
    return _closed(properties, required, transaction_example(schema))


def transaction_example(schema: Schema) -> dict[str, Any]:
    """A valid transaction made of the fields' own examples."""
    body: dict[str, Any] = {schema.id: "tx-1001", schema.time: EXAMPLE_TIME_MS}
    for spec in schema.fields:
        if spec.example is not None:
            body[spec.name] = spec.example
        elif spec.required:
            body[spec.name] = spec.values[0] if spec.values else {"text": "x"}.get(spec.kind, 1)
    return body


def label_example(schema: Schema) -> dict[str, Any]:
    """A label of the example transaction."""
    return {"label_id": "cb-1", "transaction_id": "tx-1001", "time": EXAMPLE_TIME_MS + 60_000, "fraud": True}


def event_example(schema: Schema) -> dict[str, Any]:
    """A lifecycle event of the example transaction."""
    kind = schema.lifecycle[0] if schema.lifecycle else ""
    return {"event_id": "ev-1", "transaction_id": "tx-1001", "time": EXAMPLE_TIME_MS + 1_000, "kind": kind}


def hot_paths() -> dict[str, Any]:
    """Operations of the event routes."""
    return {
        "/v1/decisions": {
            "post": _operation(
                "Decide a transaction",
                "Claims the id, observes the transaction, decides, records durably, then answers. The same id"
                " and content again gets the same answer, marked as a replay.",
                "Transaction",
                {"200": ("the decision", "Answer")},
            )
        },
        "/v1/labels": {
            "post": _operation(
                "Report what a transaction turned out to be",
                "Fraud confirmed, or withdrawn (`fraud: false`). Counts once per label id.",
                "Label",
                {"202": ("recorded", "Accepted"), "200": ("recorded before", "Accepted")},
                unknown=True,
            )
        },
        "/v1/events": {
            "post": _operation(
                "Report what became of a transaction",
                "Issuer answers, challenges, captures, refunds. Counts once per event id.",
                "Event",
                {"202": ("recorded", "Accepted"), "200": ("recorded before", "Accepted")},
                unknown=True,
            )
        },
    }


def complete(document: dict[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    """FastAPI's document with the event routes, the active schemas and the security scheme."""
    paths = document.setdefault("paths", {})
    for path, operations in hot_paths().items():
        paths.setdefault(path, {}).update(operations)
    parts = document.setdefault("components", {})
    parts.setdefault("schemas", {}).update(components(catalogue))
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
    return document


def _operation(
    summary: str,
    description: str,
    body: str,
    answers: dict[str, tuple[str, str]],
    *,
    unknown: bool = False,
) -> dict[str, Any]:
    problems = {**_PROBLEMS, "404": "no such transaction was decided"} if unknown else _PROBLEMS
    responses = {
        status: {"description": text, "content": {"application/json": {"schema": _ref(name)}}}
        for status, (text, name) in answers.items()
    }
    responses |= {status: problem(text) for status, text in problems.items()}
    return {
        "summary": summary,
        "description": description,
        **allow("decide", "analyst"),
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(body)}}},
        "responses": dict(sorted(responses.items())),
    }


def problem(text: str) -> dict[str, Any]:
    """A problem response."""
    return {"description": text, "content": {"application/problem+json": {"schema": _ref("Problem")}}}


def answer(name: str, text: str = "found") -> dict[str, Any]:
    """A JSON response."""
    return {"description": text, "content": {"application/json": {"schema": _ref(name)}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _closed(properties: dict[str, Any], required: list[str], example: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
        "examples": [example],
    }


def _id() -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": 128}


def _time() -> dict[str, Any]:
    epoch = {"type": "integer", "minimum": 1, "description": "epoch milliseconds"}
    return {"oneOf": [epoch, {"type": "string", "format": "date-time", "description": "with an offset"}]}


def _field(spec: Field, schema: Schema) -> dict[str, Any]:
    found: dict[str, Any]
    if spec.kind == "category":
        found = {"type": "string", "enum": list(spec.values)}
    elif spec.kind == "text":
        found = {"type": "string", "minLength": 1, "maxLength": spec.length_max}
    elif spec.kind == "boolean":
        found = {"type": "boolean"}
    elif spec.kind == "amount":
        found = {"type": "integer", "minimum": 0, "maximum": schema.amount_max}
    else:
        found = {"type": "integer" if spec.kind == "integer" else "number"}
        found |= {"minimum": spec.minimum} if spec.minimum is not None else {}
        found |= {"maximum": spec.maximum} if spec.maximum is not None else {}
    if not spec.required:
        found = {"oneOf": [found, {"type": "null"}]}
    if spec.description:
        found["description"] = spec.description
    if spec.example is not None:
        found["examples"] = [spec.example]
    return found


ANSWER: Final[dict[str, Any]] = {
    "type": "object",
    "required": [
        "transaction_id", "outcome", "score", "reasons", "decision", "freshness", "degraded",
        "guard", "replay",
    ],
    "properties": {
        "transaction_id": {"type": "string"},
        "outcome": {"type": "string", "enum": ["approve", "challenge", "review", "decline"]},
        "score": {"type": ["integer", "null"], "minimum": 0, "maximum": 1000},
        "reasons": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["code", "text", "weight"],
                "properties": {
                    "code": {"type": "string"},
                    "text": {"type": "string"},
                    "weight": {"type": ["number", "null"], "description": "log-odds; null for a rule"},
                },
            },
        },
        "decision": {
            "type": "object",
            "properties": {"decided_ms": {"type": "integer"}, "versions": {"type": "object"}},
        },
        "freshness": {
            "type": "object",
            "properties": {
                "flink_lag_ms": {"type": ["integer", "null"]},
                "generation": {"type": "string"},
                "state": {"type": "string", "enum": ["fresh", "stale", "rebuilding"]},
            },
        },
        "degraded": {"type": "array", "items": {"type": "string"}},
        "guard": {"type": ["string", "null"], "description": "why nothing is declined now; null: it is"},
        "replay": {"type": "boolean"},
    },
    "examples": [
        {
            "transaction_id": "tx-1001",
            "outcome": "challenge",
            "score": 412,
            "reasons": [{"code": "new_device", "text": "new device", "weight": None}],
            "decision": {"decided_ms": EXAMPLE_TIME_MS, "versions": {"model": "payments-1f2e3d4c5b6a"}},
            "freshness": {"flink_lag_ms": 18, "generation": "a1b2", "state": "fresh"},
            "degraded": [],
            "guard": None,
            "replay": False,
        }
    ],
}  # fmt: skip
PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "field": {"type": "string"},
    },
    "examples": [
        {
            "type": "urn:cordon:problem:range",
            "title": "Invalid event",
            "status": 422,
            "code": "range",
            "detail": "amount: must be from 0 to 100000000",
            "field": "amount",
        }
    ],
}
