"""Schemas of what is answered. A test sends requests without end and holds every answer against them.

Objects are open: a new field is no break. What stands in `required` is always there.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """A schema of the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def structure(properties: Mapping[str, Schema], optional: Sequence[str] = ()) -> Schema:
    """An object; every property is required but the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required}


def array(items: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": items}


def mapping(values: Schema) -> Schema:
    """An object with any keys."""
    return {"type": "object", "additionalProperties": values}


def one_of(*values: str) -> Schema:
    """One of these words."""
    return {"type": "string", "enum": list(values)}


TEXT: Final[Schema] = {"type": "string"}
WHOLE: Final[Schema] = {"type": "integer"}
FLAG: Final[Schema] = {"type": "boolean"}
NUMBER: Final[Schema] = {"type": "number"}
TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
NUMBER_OR_NULL: Final[Schema] = {"type": ["number", "null"]}
WHOLE_OR_NULL: Final[Schema] = {"type": ["integer", "null"]}
OUTCOME: Final = one_of("approve", "challenge", "review", "decline")
_JUDGED: Final[Mapping[str, Schema]] = {
    "outcome": OUTCOME,
    "score": WHOLE_OR_NULL,
    "probability": NUMBER_OR_NULL,
    "expected_loss": NUMBER_OR_NULL,
    "winner": ref("Voice"),
    "others": array(ref("Voice")),
    "reasons": array(ref("Reason")),
    "rules": array(ref("RuleResult")),
    "degraded": array(TEXT),
}
_TRACED: Final[Mapping[str, Schema]] = {"freshness": ref("Freshness"), "versions": mapping(TEXT_OR_NULL)}
_REMADE: Final[Mapping[str, Schema]] = {
    **_JUDGED,
    "no_hit": array(TEXT),
    "not_evaluated": mapping(array(TEXT)),
    "margin": NUMBER_OR_NULL,
    "scored_by": TEXT_OR_NULL,
}
_BATCH: Final[Mapping[str, Schema]] = {
    "id": TEXT,
    "status": one_of("waiting", "running", "finished", "failed"),
    "lines": WHOLE,
    "done": WHOLE,
    "outcomes": mapping(WHOLE),
    "replays": WHOLE,
    "failed": WHOLE,
    "errors": array(ref("BatchResult")),
    "accepted_ms": WHOLE,
    "finished_ms": WHOLE_OR_NULL,
    "why": TEXT_OR_NULL,
}

_CASE: Final[Mapping[str, Schema]] = {
    "id": TEXT,
    "opened_ms": WHOLE,
    "time_ms": WHOLE,
    "score": WHOLE_OR_NULL,
    "status": one_of("open", "resolved"),
    "assignee": TEXT_OR_NULL,
    "resolution": {"enum": ["fraud", "legitimate", None]},
    "version": WHOLE,
    "updated_ms": WHOLE_OR_NULL,
}

ANSWERS: Final[Mapping[str, Schema]] = {
    "Personal": structure({"transaction_id": TEXT, "personal": mapping({}), "access": TEXT}),
    "Erasure": structure(
        {
            "id": TEXT,
            "event": one_of("erasure"),
            "time_ms": WHOLE,
            "begun_ms": WHOLE,
            "entity": TEXT,
            "subject": TEXT,
            "generation": WHOLE,
            "by": TEXT,
            "keys": WHOLE,
            "letters": WHOLE,
            "leaves": array(TEXT),
            "vault": mapping({"type": ["string", "integer"]}),
            "states": mapping(WHOLE),
        }
    ),
    "ErasureBegun": structure({"event": one_of("erasure_begun"), "waits_for": TEXT}),
    "Reason": structure(
        {"code": TEXT, "text": TEXT, "weight": NUMBER_OR_NULL, "features": array(TEXT)},
        ("features", "weight"),
    ),
    "Voice": structure({"by": TEXT, "id": TEXT, "outcome": OUTCOME}),
    "RuleResult": structure(
        {
            "id": TEXT,
            "result": one_of("hit", "no_hit", "not_evaluated"),
            "mode": TEXT,
            "action": TEXT,
            "missing": array(TEXT),
            "held": TEXT,
            "text": TEXT_OR_NULL,
            "reason": TEXT_OR_NULL,
        },
        ("mode", "action", "missing", "held", "text", "reason"),
    ),
    "Freshness": structure(
        {
            "flink_lag_ms": WHOLE_OR_NULL,
            "generation": TEXT_OR_NULL,
            "state": one_of("fresh", "stale", "rebuilding"),
        }
    ),
    "Record": structure(
        {
            "type": one_of("decision", "abandoned"),
            "v": WHOLE,
            "tenant": TEXT,
            "id": TEXT,
            "decided_ms": WHOLE,
            "time_ms": WHOLE,
            "door": TEXT,
            "transaction": {"type": "object"},
            "entities": mapping(TEXT),
            **_REMADE,
            "features": array(NUMBER_OR_NULL),
            **_TRACED,
            "claim": TEXT,
            "stages_us": mapping(WHOLE),
            "guard": TEXT,
        },
        ("guard", "no_hit", "not_evaluated"),
    ),
    "Records": structure({"decisions": array(ref("Record")), "next": TEXT_OR_NULL}),
    "Explanation": {
        "description": "what a customer is told has `summary`, and no numbers, rules or versions",
        "anyOf": [ref("InternalExplanation"), ref("CustomerExplanation")],
    },
    "InternalExplanation": structure(
        {
            "transaction_id": TEXT,
            **_JUDGED,
            **_TRACED,
            "language": TEXT,
            "counterfactuals": array(ref("Counterfactual")),
            "model": ref("ModelExplanation"),
        },
        ("model",),
    ),
    "Counterfactual": structure(
        {
            "kind": one_of("amount", "known", "fewer", "without", "field"),
            "subject": TEXT,
            "outcome": OUTCOME,
            "limit": WHOLE_OR_NULL,
            "below": FLAG,
            "changes": array(structure({"feature": TEXT, "from": NUMBER_OR_NULL, "to": NUMBER_OR_NULL})),
            "text": TEXT,
        }
    ),
    "CustomerExplanation": structure(
        {
            "transaction_id": TEXT,
            "outcome": OUTCOME,
            "summary": TEXT,
            "language": TEXT,
            "reasons": array(ref("Reason")),
            "counterfactuals": array(structure({"text": TEXT})),
        }
    ),
    "ModelExplanation": structure(
        {
            "version": TEXT,
            "space": TEXT,
            "base_value": NUMBER,
            "margin": NUMBER,
            "additivity_error": NUMBER,
            "contributions": array(ref("Contribution")),
        }
    ),
    "Contribution": structure(
        {"feature": TEXT, "value": NUMBER_OR_NULL, "unit": TEXT_OR_NULL, "contribution": NUMBER}
    ),
    "Replayed": structure(
        {
            "transaction_id": TEXT,
            "as": one_of("stored", "current"),
            "same": FLAG,
            "recorded": structure(
                {**_REMADE, "versions": mapping(TEXT_OR_NULL)}, ("no_hit", "not_evaluated")
            ),
            "replayed": {"oneOf": [structure(_REMADE), {"type": "null"}]},
            "differences": array(structure({"part": TEXT, "name": TEXT, "detail": TEXT})),
        }
    ),
    "Entity": structure(
        {
            "entity": TEXT,
            "pseudonym": TEXT,
            "at_ms": WHOLE,
            "features": mapping(NUMBER_OR_NULL),
            "freshness": ref("Freshness"),
        }
    ),
    "Cases": structure({"cases": array(ref("CaseRow")), "next": TEXT_OR_NULL}),
    "CaseRow": structure(_CASE),
    "Case": structure({**_CASE, "events": array(ref("CaseEvent"))}),
    "CaseEvent": structure(
        {
            "type": one_of("audit"),
            "v": WHOLE,
            "tenant": TEXT,
            "id": TEXT,
            "event": one_of("case_assigned", "case_commented", "case_resolved"),
            "time_ms": WHOLE,
            "case_id": TEXT,
            "version": WHOLE,
            "by": TEXT,
            "text": TEXT,
            "assignee": TEXT_OR_NULL,
            "resolution": one_of("fraud", "legitimate"),
            "label_time_ms": WHOLE,
        },
        ("assignee", "resolution", "label_time_ms"),
    ),
    "WebhookKey": structure({"id": TEXT, "key_id": TEXT, "secret": TEXT}),
    "WebhookDone": structure({"id": TEXT, "deliveries": WHOLE}),
    "Webhooks": structure({"webhooks": array(ref("Webhook"))}),
    "Webhook": structure(
        {
            "id": TEXT,
            "url": TEXT,
            "events": array(TEXT),
            "key_ids": array(TEXT),
            "made_ms": WHOLE,
            "made_by": TEXT,
            "waits": WHOLE,
            "dead": WHOLE,
        }
    ),
    "DeadDeliveries": structure(
        {"dead": array(structure({"event": TEXT, "type": TEXT, "attempts": WHOLE, "error": TEXT}))}
    ),
    "MeanExplanations": structure({"models": array(ref("MeanExplanation")), "left_out": WHOLE}),
    "MeanExplanation": structure(
        {
            "model": TEXT,
            "decisions": WHOLE,
            "base_value": NUMBER,
            "features": array(structure({"feature": TEXT, "mean": NUMBER, "mean_absolute": NUMBER})),
            "reasons": array(ref("Reason")),
        }
    ),
    "Brakes": structure({"tripped": array(ref("Trip"))}),
    "Trip": structure({"name": TEXT, "epoch": WHOLE, "at_ms": WHOLE, "until_ms": WHOLE, "why": TEXT}),
    "BrakeStep": structure({"sequence": WHOLE, "kind": TEXT, "by": TEXT, "at_ms": WHOLE, "note": TEXT}),
    "Batch": structure(_BATCH),
    "AcceptedBatch": structure({**_BATCH, "replay": FLAG}),
    "BatchResults": structure({"results": array(ref("BatchResult")), "next": WHOLE_OR_NULL}),
    "BatchResult": structure(
        {
            "line": WHOLE,
            "transaction_id": TEXT_OR_NULL,
            "status": WHOLE,
            "answer": ref("Answer"),
            "problem": structure({"code": TEXT, "detail": TEXT, "field": TEXT}, ("field",)),
        },
        ("answer", "problem"),
    ),
    "Alive": structure({"status": one_of("ok")}),
    "Ready": structure({"status": one_of("ok", "degraded", "unavailable"), "parts": mapping(TEXT)}),
}
"""Components, by name."""
