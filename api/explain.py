"""The explanation of a past decision, recomputed from its stored vector with its stored model version."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from api.counterfactual import Counterfactual
from api.model import Explainer, ServingModel
from api.outcome import Outcome
from api.rules.rule import RuleSet
from api.rules.told import results_of
from features.catalogue import Catalogue
from features.rates import EXPONENTS
from models.reasons import Audience, Language, ReasonBook, load_reasons

AUDIENCES: Final[tuple[Audience, ...]] = ("analyst", "data_scientist", "customer")


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
    language: Language = "en",
    others: Sequence[Counterfactual] = (),
) -> dict[str, Any]:
    """What `GET /v1/decisions/{id}/explanation` answers. Raises `NotExplainable`, `ModelFailed`.

    A customer is told what kind of thing was unusual: no numbers, thresholds, scores or rules. `others`: what
    would have given a milder outcome.
    """
    book = load_reasons(language)
    scored = model is not None and record["scored_by"] == "model"
    found = shares(record, model, catalogue) if scored and model is not None else None
    reasons = _reasons(record, _explainer(model, catalogue, book), found, audience, book)
    if audience == "customer":
        return {
            "transaction_id": record["id"],
            "outcome": record["outcome"],
            "summary": book.customer[record["outcome"]],
            "language": language,
            "reasons": [{"code": r["code"], "text": r["text"]} for r in reasons],
            "counterfactuals": customer_words(others, catalogue, book),
        }
    document: dict[str, Any] = {
        "transaction_id": record["id"],
        "outcome": record["outcome"],
        "score": record["score"],
        "probability": record["probability"],
        "expected_loss": record["expected_loss"],
        "winner": record["winner"],
        "others": record["others"],
        "language": language,
        "reasons": reasons,
        "counterfactuals": [
            {**other.to_json(), "text": analyst_words(other, catalogue, book)} for other in others
        ],
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


def _explainer(model: ServingModel | None, catalogue: Catalogue, book: ReasonBook) -> Explainer | None:
    """Groups a model's contributions in the words of a language; the model has the English ones itself."""
    if model is None or book.language == "en":
        return None if model is None else model.explainer
    return book.group(tuple(catalogue.features[place] for place in model.columns.tolist()))


def _reasons(
    record: Mapping[str, Any],
    explainer: Explainer | None,
    found: Shares | None,
    audience: Audience,
    book: ReasonBook,
) -> list[dict[str, Any]]:
    """Reasons of rules and policies by their codes, those of the model in the words of the audience."""
    recorded = [reason for reason in record["reasons"] if reason["weight"] is None]
    if audience == "customer":
        recorded = [{**reason, "text": book.customer["check"]} for reason in recorded]
    elif book.language != "en":
        words = {**book.rules, **book.policies}
        recorded = [{**r, "text": words.get(r["code"], r["text"])} for r in recorded]
    if found is None or explainer is None:
        return recorded
    row = np.array([[*found.values, found.base]])
    own = explainer.top(row, count=6, audience=audience)[0]
    return recorded + [
        {"code": r.code, "text": r.text, "weight": round(r.weight, 6), "features": list(r.features)}
        for r in own
    ]


def analyst_words(found: Counterfactual, catalogue: Catalogue, book: ReasonBook) -> str:
    """A finding in words, with its numbers."""
    schema = catalogue.schema
    subject, _, other = found.subject.partition("/")
    digits = EXPONENTS.get(schema.base_currency, 2)
    values = {
        "outcome": book.outcomes[found.outcome.word],
        "amount": book.money(found.limit or 0, digits, schema.base_currency),
        "count": found.limit or 0,
        "entity": book.entity(subject),
        "field": book.field(subject),
        "other": book.field(other),
    }
    return _wording(found, book)["analyst"].format(**values)


def customer_words(
    others: Sequence[Counterfactual], catalogue: Catalogue, book: ReasonBook
) -> list[dict[str, str]]:
    """What a customer may read: that it would have passed with something else, never where a limit is."""
    texts = [
        _wording(other, book)["customer"].format(field=book.field(other.subject))
        for other in others
        if other.outcome is Outcome.APPROVE
    ]
    return [{"text": text} for text in dict.fromkeys(texts)]


def _wording(found: Counterfactual, book: ReasonBook) -> Mapping[str, str]:
    if found.kind == "amount":
        return book.counterfactuals["amount/below" if found.below else "amount/at"]
    if found.kind == "without":
        return book.counterfactuals[f"without/{found.subject.partition('/')[2]}"]
    return book.counterfactuals[f"{found.kind}/*"]


def _rules(record: Mapping[str, Any], rules: RuleSet) -> list[dict[str, Any]]:
    """Every rule, with its words where the set that decided is at hand."""
    same = record["versions"]["rules"] == rules.version
    found = []
    for id_, result in results_of(record).items():
        rule = rules.rule(id_) if same else None
        if rule is None:
            found.append({**result, "text": None, "reason": None})
        else:
            words = {
                "mode": rule.mode,
                "action": rule.action,
                "text": rule.sentence.text,
                "reason": rule.reason,
            }
            found.append({**words, **result})
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
