"""The explanation of a past decision, recomputed from its stored vector with its stored model version."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from api.model import ServingModel
from api.rules.rule import RuleSet
from features.catalogue import Catalogue
from models.reasons import Audience

AUDIENCES: Final[tuple[Audience, ...]] = ("analyst", "data_scientist", "customer")
_CUSTOMER_OUTCOMES: Final = {
    "approve": "The payment was approved.",
    "challenge": "We asked for an additional confirmation of the payment.",
    "review": "The payment is being checked by our team.",
    "decline": "The payment was declined.",
}


class NotExplainable(Exception):
    """The stored vector belongs to another catalogue, or its model version is not here."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Exact contributions of one stored vector. `error`: |base + sum - margin|."""

    base: float
    values: tuple[float, ...]
    margin: float
    error: float


def shares(record: Mapping[str, Any], model: ServingModel, catalogue: Catalogue) -> Shares:
    """SHAP values of the margin, in log-odds. Raises `NotExplainable`, `ModelFailed`."""
    if record["versions"]["catalogue"] != catalogue.vector_fingerprint:
        raise NotExplainable(f"decided with catalogue {record['versions']['catalogue']}")
    stored = [math.nan if value is None else value for value in record["features"]]
    matrix = np.array([stored], np.float32)
    found = model.contributions(matrix)[0]
    total = float(found.sum())
    return Shares(
        float(found[-1]),
        tuple(float(v) for v in found[:-1]),
        total,
        abs(total - float(record["margin"])) if record["margin"] is not None else 0.0,
    )


def explanation(
    record: Mapping[str, Any],
    model: ServingModel | None,
    rules: RuleSet,
    catalogue: Catalogue,
    audience: Audience,
) -> dict[str, Any]:
    """What `GET /v1/decisions/{id}/explanation` answers. Raises `NotExplainable`, `ModelFailed`.

    A customer is told what kind of thing was unusual: no numbers, thresholds, scores or rules.
    """
    scored = model is not None and record["scored_by"] == "model"
    found = shares(record, model, catalogue) if scored and model is not None else None
    reasons = _reasons(record, model, found, audience)
    if audience == "customer":
        return {
            "transaction_id": record["id"],
            "outcome": record["outcome"],
            "summary": _CUSTOMER_OUTCOMES[record["outcome"]],
            "reasons": [{"code": r["code"], "text": r["text"]} for r in reasons],
        }
    document: dict[str, Any] = {
        "transaction_id": record["id"],
        "outcome": record["outcome"],
        "score": record["score"],
        "probability": record["probability"],
        "expected_loss": record["expected_loss"],
        "winner": record["winner"],
        "others": record["others"],
        "reasons": reasons,
        "rules": _rules(record, rules),
        "freshness": record["freshness"],
        "degraded": record["degraded"],
        "versions": record["versions"],
    }
    if found is not None and model is not None:
        document["model"] = {
            "version": model.version,
            "space": "log-odds",
            "base_value": found.base,
            "margin": found.margin,
            "additivity_error": found.error,
            "contributions": _contributions(record, model, catalogue, found.values, audience),
        }
    return document


def _reasons(
    record: Mapping[str, Any], model: ServingModel | None, found: Shares | None, audience: Audience
) -> list[dict[str, Any]]:
    """Reasons of rules and policies as recorded, those of the model in the words of the audience."""
    recorded = [reason for reason in record["reasons"] if reason["weight"] is None]
    if audience == "customer":
        recorded = [{**reason, "text": "A security check applied to this payment"} for reason in recorded]
    if found is None or model is None:
        return recorded
    row = np.array([[*found.values, found.base]])
    own = model.explainer.top(row, count=6, audience=audience)[0]
    return recorded + [
        {"code": r.code, "text": r.text, "weight": round(r.weight, 6), "features": list(r.features)}
        for r in own
    ]


def _rules(record: Mapping[str, Any], rules: RuleSet) -> list[dict[str, Any]]:
    """Every rule with its text, where the set that decided is still the one that is loaded."""
    same = record["versions"]["rules"] == rules.version
    found = []
    for result in record["rules"]:
        rule = rules.rule(result["id"]) if same else None
        text = None if rule is None else rule.sentence.text
        found.append({**result, "text": text, "reason": None if rule is None else rule.reason})
    return found


def _contributions(
    record: Mapping[str, Any],
    model: ServingModel,
    catalogue: Catalogue,
    values: Sequence[float],
    audience: Audience,
) -> list[dict[str, Any]]:
    """Features by the size of their contribution; an analyst sees those that matter."""
    found = [
        {
            "feature": name,
            "value": record["features"][place],
            "unit": catalogue.features[place].unit,
            "contribution": value,
        }
        for name, place, value in zip(model.features, model.columns.tolist(), values, strict=True)
    ]
    found.sort(key=lambda item: -abs(item["contribution"]))
    return found if audience == "data_scientist" else found[:12]
