"""A past decision made again, from its stored vector, with the versions that made it or with today's.

The same versions give the same outcome, score and reasons, bit for bit. Where they do not, or where a
version is not what it was, the answer names the part:

    model       the artefact is missing, damaged, or not the same version
    rule, list  one rule, or one list, by name
    rules       the set as a whole: it is missing, or its order changed
    policy      what happens when parts fail
    catalogue   the vector means something else today, so that nothing can be decided again
    code        all of them are what they were, and the answer is another one: only the code is left
"""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from api.artefacts import Artefacts
from api.decide import Case, Context, Freshness, Policy
from api.judge import Judge, shown
from api.model import ModelRefused, ServingModel
from api.rules.load import RuleSetError
from api.rules.manifest import changes
from api.rules.rule import EMPTY, Circumstances, RuleSet, unit_of
from api.rules.shelf import SetChanged, SetMissing
from api.rules.told import results_of
from features.catalogue import Catalogue

As = Literal["stored", "current"]
Part = Literal["model", "rule", "list", "rules", "policy", "catalogue", "code"]
COMPARED: Final = (
    "outcome", "score", "probability", "margin", "expected_loss", "scored_by", "winner", "others", "degraded",
    "reasons",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """One part that is not what it was, and how that shows."""

    part: Part
    name: str
    detail: str

    def to_json(self) -> dict[str, str]:
        """A JSON object."""
        return {"part": self.part, "name": self.name, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Replayed:
    """A decision made again. `answer` is `None` where it could not be made."""

    recorded: Mapping[str, Any]
    answer: Mapping[str, Any] | None
    differences: tuple[Difference, ...]
    mode: As

    @property
    def same(self) -> bool:
        """Whether the very same was decided."""
        return self.answer is not None and all(self.answer[k] == self.recorded[k] for k in COMPARED)

    def to_json(self) -> dict[str, Any]:
        """What `POST /v1/decisions/{id}/replay` answers."""
        kept = (*COMPARED, "rules", "no_hit", "not_evaluated", "versions")
        return {
            "transaction_id": self.recorded["id"],
            "as": self.mode,
            "same": self.same,
            "recorded": {key: self.recorded[key] for key in kept if key in self.recorded},
            "replayed": self.answer,
            "differences": [d.to_json() for d in self.differences],
        }


@dataclass(slots=True)
class Parts:
    """What decides again. `scored`: a model belongs to it. `found`: what is not what it was."""

    model: ServingModel | None = None
    rules: RuleSet | None = None
    policy: Policy | None = None
    scored: bool = False
    found: list[Difference] = field(default_factory=list)


class Replayer:
    """Replays decisions. `live`: the judge that decides now; `artefacts`: what decided before."""

    def __init__(self, live: Judge, artefacts: Artefacts) -> None:
        self._live = live
        self._artefacts = artefacts
        self._catalogue = live.catalogue
        self._vector = live.catalogue.vector_fingerprint
        self._opening = threading.Lock()
        self._latest: Judge | None = None

    def replay(self, record: Mapping[str, Any], mode: As, now_ms: int) -> Replayed:
        """Decide a recorded decision again. `now_ms`: when rules expire, under today's."""
        return self.decide(record, mode, self.open(record, mode), now_ms)

    def open(self, record: Mapping[str, Any], mode: As) -> Parts:
        """What a replay needs, read and verified; may take seconds, and may run beside the loop."""
        vector = record["versions"]["catalogue"]
        if vector != self._vector:
            detail = f"decided on vector {vector}, this is {self._vector}"
            return Parts(found=[Difference("catalogue", vector, detail)])
        with self._opening:
            return self._stored(record) if mode == "stored" else self._current(record)

    def decide(self, record: Mapping[str, Any], mode: As, parts: Parts, now_ms: int) -> Replayed:
        """Decide again with what `open` found, in the thread that decides: it shares its scorers."""
        judge = self.judge(parts)
        if judge is None:
            return Replayed(record, None, tuple(parts.found), mode)
        at_ms = record["decided_ms"] if mode == "stored" else now_ms
        failed = mode == "stored" and "model" in record["degraded"]
        answer = decide_again(record, judge, circumstances(record, at_ms), failed=failed)
        if mode == "stored":
            parts.found += _unexplained(record, answer, self._live.code)
        return Replayed(record, answer, tuple(parts.found), mode)

    def judge(self, parts: Parts) -> Judge | None:
        """A judge of what decided, for the thread that decides; `None` where something of it is missing."""
        if parts.rules is None or parts.policy is None or (parts.scored and parts.model is None):
            return None
        return self._judge(parts.model, parts.rules, parts.policy)

    def _judge(self, model: ServingModel | None, rules: RuleSet, policy: Policy) -> Judge:
        """A judge of these; mostly the one of the replay before."""
        known, live = self._latest, self._live
        if known is None or known.model is not model or known.rules is not rules or known.policy != policy:
            known = Judge(self._catalogue, live.tenant, model, rules, policy, live.code, lambda: 0)
            self._latest = known
        return known

    def _stored(self, record: Mapping[str, Any]) -> Parts:
        """The versions that decided; those that are not what they were are named."""
        versions = record["versions"]
        parts = Parts(scored=versions["model"] is not None)
        try:
            parts.policy = Policy.of_version(versions["policy"])
        except ValueError as error:
            parts.found.append(Difference("policy", versions["policy"], str(error)))
        if versions["model"] is not None:
            try:
                parts.model = self._model(versions["model"])
            except ModelRefused as error:
                parts.found.append(Difference("model", versions["model"], str(error)))
        try:
            parts.rules = self._rules(versions["rules"])
        except (SetMissing, RuleSetError) as error:
            parts.found.append(Difference("rules", versions["rules"], str(error)))
        except SetChanged as error:
            parts.found += _changed(error)
        return parts

    def _current(self, record: Mapping[str, Any]) -> Parts:
        """Today's versions; those that decided and are others are named."""
        live, versions = self._live, record["versions"]
        parts = Parts(live.model, live.rules, live.policy, live.model is not None)
        model = None if live.model is None else live.model.version
        if model != versions["model"]:
            parts.found.append(Difference("model", str(model), f"decided by {versions['model']}"))
        if live.policy.version != versions["policy"]:
            detail = f"decided under {versions['policy']}"
            parts.found.append(Difference("policy", live.policy.version, detail))
        if live.rules.version != versions["rules"]:
            parts.found += self._since(versions["rules"])
        return parts

    def _since(self, version: str) -> list[Difference]:
        """What changed between a set and today's."""
        try:
            found = changes(self._rules(version).manifest, self._live.rules.manifest)
        except (SetMissing, SetChanged, RuleSetError):
            return [Difference("rules", self._live.rules.version, f"decided by {version}")]
        detail = f"changed between {version} and {self._live.rules.version}"
        named = [Difference("rule", name, detail) for name in found.rules]
        named += [Difference("list", name, detail) for name in found.lists]
        return named or [Difference("rules", self._live.rules.version, f"other order than {version}")]

    def _model(self, version: str) -> ServingModel:
        live = self._live.model
        return live if live is not None and live.version == version else self._artefacts.model(version)

    def _rules(self, version: str) -> RuleSet:
        """Of the shelf: also for the live set, so that a change behind its version is seen."""
        if version == EMPTY.version:
            return EMPTY
        if self._artefacts.shelf is None and version == self._live.rules.version:
            return self._live.rules
        return self._artefacts.rules(version)


def circumstances(record: Mapping[str, Any], now_ms: int) -> Circumstances:
    """What the rules depended on, from what they are recorded to have said."""
    held = [(r["id"], r["held"]) for r in record["rules"] if "held" in r]
    entities = record["entities"].values()
    return Circumstances(
        now_ms,
        frozenset(id_ for id_, why in held if why == "tripped"),
        frozenset((id_, entity) for id_, why in held if why == "snoozed" for entity in entities),
    )


def case_of(record: Mapping[str, Any], catalogue: Catalogue) -> Case:
    """The transaction as it was decided."""
    schema, entities = catalogue.schema, record["entities"]
    values = {k: v for k, v in record["transaction"].items() if k != "original_amount"}
    amount = values.get(schema.amount) if schema.amount is not None else None
    return Case(
        record["id"],
        record["time_ms"],
        amount if isinstance(amount, int) else 0,
        values,
        entities,
        dict(zip(catalogue.names, record["features"], strict=True)),
        unit_of(record["id"], entities, schema),
    )


def context_of(record: Mapping[str, Any], about: Circumstances) -> Context:
    """What else the decision depended on."""
    fresh = record["freshness"]
    freshness = Freshness(fresh["state"], fresh["generation"], fresh["flink_lag_ms"])
    parts = tuple(p for p in record["degraded"] if p not in ("stale", "rebuilding"))
    return Context(about, freshness, parts, record.get("guard"))


def decide_again(
    record: Mapping[str, Any], judge: Judge, about: Circumstances, *, failed: bool
) -> dict[str, Any]:
    """The decision of a stored vector by `judge`, as a record shows it. `failed`: without its model."""
    stored = [math.nan if value is None else value for value in record["features"]]
    decision, reasons = judge.again(
        np.array([stored], np.float32),
        case_of(record, judge.catalogue),
        context_of(record, about),
        failed=failed,
    )
    versions = {
        **record["versions"],
        "model": None if judge.model is None else judge.model.version,
        "rules": judge.rules.version,
        "lists": judge.rules.lists_version,
        "policy": judge.policy.version,
        "code": judge.code,
    }
    return {**shown(decision), "reasons": reasons, "versions": versions}


def _changed(error: SetChanged) -> list[Difference]:
    detail = f"changed on the shelf of {error.version}"
    named = [Difference("rule", name, detail) for name in error.changes.rules]
    named += [Difference("list", name, detail) for name in error.changes.lists]
    return named or [Difference("rules", error.version, str(error))]


def _unexplained(record: Mapping[str, Any], answer: Mapping[str, Any], code: str) -> list[Difference]:
    """Other answers from the very same parts."""
    found = []
    named = f"{record['versions']['code']} then, {code} now"
    then, now = results_of(record), results_of(answer)
    for id_ in (*now, *(then.keys() - now.keys())):
        if then.get(id_) != now.get(id_):
            found.append(Difference("code", named, f"rule {id_}: {then.get(id_)} then, {now.get(id_)} now"))
    for key in COMPARED:
        if answer[key] != record[key]:
            found.append(Difference("code", named, f"{key}: {record[key]} then, {answer[key]} now"))
    return found
